/**
 * Reads what strace saw of a PostgreSQL server's processes, and says whether
 * what was acknowledged was on disk by then. An entry is followed by its hash:
 * in the statement that a backend received, in the bytes that any process wrote
 * to the log of the server (WAL), and up to the answer that the backend sent.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { within } from "../../services/runtime/wait/within.ts";
import { InfrastructureError } from "./fault-driver.ts";
import { childrenOf } from "./process-tree.ts";

/** A system call that ended. */
export interface SystemCall {
  readonly pid: number;
  readonly name: string;
  /** Of its file or socket. */
  readonly path: string;
  /** What was read or written. */
  readonly data: Buffer;
  /** Where it was written; of pwrite64. */
  readonly offset: number;
  readonly result: number;
  /** The lines of the trace at which it began and ended: what began later than another one ended came after it. */
  readonly begins: number;
  readonly ends: number;
}

/** What became of an entry. */
export type Durability =
  | { readonly type: "durable" }
  /** Why it counts as not durable, or why that cannot be told. */
  | { readonly type: "not durable" | "not seen"; readonly why: string };

const calls = ["recvfrom", "sendto", "pwrite64", "pwritev", "write", "fdatasync", "fsync"] as const;
/** ReadyForQuery with no transaction open. */
const ready = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);
/** A record may go on behind the header of the next page: a half of the hash is enough to find it. */
const halfBytes = 16;

/** How long strace may take to follow them all, in milliseconds. */
const attachWithinMs = 60_000;

/** Follows a server and all its processes, those to come included. `stop` ends it when all is on record. */
export async function traceServer(serverPid: number, file: string): Promise<{ stop(): Promise<void> }> {
  const pids = [serverPid, ...childrenOf(serverPid).map(({ pid }) => pid)];
  const options = ["-f", "-y", "-xx", "-s", "1000000", "-e", `trace=${calls.join()}`, "-o", file];
  const tracer: ChildProcess = spawn("strace", [...options, ...pids.flatMap((pid) => ["-p", String(pid)])], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let told = "";
  const attached = new Promise<void>((resolve, reject) => {
    tracer.once("error", (cause) => reject(new InfrastructureError("strace does not start", { cause })));
    tracer.once("exit", () => reject(new InfrastructureError(`strace ended: ${told}`)));
    tracer.stderr?.setEncoding("utf8").on("data", (text: string) => {
      told += text;
      // A process may have ended since it was listed, and be gone or not yet waited for: what strace says differs then.
      const isSettled = (pid: number): boolean =>
        told.includes(`Process ${pid} attached`) || told.includes(`, ${pid}): `);
      if (pids.every(isSettled)) resolve();
    });
  });
  await within(attachWithinMs, attached, () => {
    tracer.kill("SIGINT");
    throw new InfrastructureError(`strace does not attach: ${told}`);
  });
  return {
    async stop() {
      tracer.kill("SIGINT");
      if (tracer.exitCode === null && tracer.signalCode === null) await once(tracer, "exit");
    },
  };
}

/** Reads a trace. */
export function readTrace(file: string): readonly SystemCall[] {
  return parseTrace(readFileSync(file, "latin1"));
}

/** Reads the text of a trace: one call a line, or two where it was interrupted. */
export function parseTrace(text: string): readonly SystemCall[] {
  const begun = new Map<number, { readonly head: string; readonly line: number }>();
  const found: SystemCall[] = [];
  for (const [line, whole] of text.split("\n").entries()) {
    const pid = Number.parseInt(whole, 10);
    const event = whole.slice(whole.indexOf(" ")).trimStart();
    const unfinished = / *<unfinished \.\.\.>$/.exec(event);
    if (unfinished !== null) {
      begun.set(pid, { head: event.slice(0, unfinished.index), line });
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>/.exec(event);
    const before = resumed === null ? undefined : begun.get(pid);
    if (resumed !== null && before === undefined) continue; // it began before we looked
    begun.delete(pid);
    const call = parseCall(before === undefined ? event : before.head + event.slice(resumed?.[0].length));
    if (call !== undefined) found.push({ ...call, pid, begins: before?.line ?? line, ends: line });
  }
  return found;
}

function parseCall(text: string): Omit<SystemCall, "pid" | "begins" | "ends"> | undefined {
  const match = /^(\w+)\(\d+<([^>]*)>(.*)\)\s+= (-?\d+)/s.exec(text);
  if (match === null) return undefined;
  const [, name = "", path = "", rest = "", result = "0"] = match;
  const data = /^,\s*"((?:\\x[0-9a-f]{2})*)"/.exec(rest);
  const offset = name === "pwrite64" ? Number(/(\d+)$/.exec(rest)?.[1] ?? 0) : 0;
  return {
    name,
    path: unescape(path).toString("latin1"),
    data: unescape(data?.[1] ?? ""),
    offset,
    result: Number(result),
  };
}

function unescape(text: string): Buffer {
  return Buffer.from(text.replaceAll("\\x", ""), "hex");
}

/** Whether each entry was on disk when the backend that stored it said so. */
export function checkDurability(
  trace: readonly SystemCall[],
  hashes: readonly Buffer[],
): ReadonlyMap<string, Durability> {
  const statements = receivedBy(trace);
  return new Map(hashes.map((hash) => [hash.toString("hex"), durabilityOf(trace, statements, hash)]));
}

/** What each backend received, as one piece, with the call that brought each part. */
interface Received {
  readonly pid: number;
  readonly data: Buffer;
  readonly parts: readonly { readonly endsAt: number; readonly call: SystemCall }[];
}

function receivedBy(trace: readonly SystemCall[]): readonly Received[] {
  const byPid = Map.groupBy(
    trace.filter(({ name, result }) => name === "recvfrom" && result > 0),
    ({ pid }) => pid,
  );
  return [...byPid].map(([pid, received]) => {
    let length = 0;
    const parts = received.map((call) => ({ endsAt: (length += call.data.length), call }));
    return { pid, data: Buffer.concat(received.map(({ data }) => data)), parts };
  });
}

function durabilityOf(trace: readonly SystemCall[], statements: readonly Received[], hash: Buffer): Durability {
  // Later statements name it, too: the next entry follows it.
  const first = statements
    .flatMap(({ pid, data, parts }) => {
      const at = data.indexOf(hash);
      const call = at < 0 ? undefined : parts.find(({ endsAt }) => endsAt >= at + hash.length)?.call;
      return call === undefined ? [] : [{ pid, call }];
    })
    .sort((a, b) => a.call.begins - b.call.begins)[0];
  if (first === undefined) return { type: "not seen", why: "no statement with it" };
  const { pid, call: received } = first;
  const answer = trace.find(
    ({ name, begins, data, ...call }) =>
      call.pid === pid && name === "sendto" && begins > received.ends && data.subarray(-ready.length).equals(ready),
  );
  if (answer === undefined) return { type: "not seen", why: "no answer to its statement" };
  const writes = trace.filter(
    ({ name, path, ends, begins, data }) =>
      name === "pwrite64" && isLog(path) && begins > received.begins && ends < answer.begins && holds(data, hash),
  );
  if (writes.length === 0) return { type: "not durable", why: "it was acknowledged before it was written to the log" };
  const isSynced = writes.some((write) =>
    trace.some(
      ({ name, path, begins, ends, result }) =>
        (name === "fdatasync" || name === "fsync") &&
        path === write.path &&
        result === 0 &&
        begins > write.ends &&
        ends < answer.begins,
    ),
  );
  return isSynced
    ? { type: "durable" }
    : { type: "not durable", why: "it was acknowledged before the log was synchronised up to it" };
}

function isLog(path: string): boolean {
  return /\/pg_wal\/[0-9A-F]{24}$/.test(path);
}

function holds(data: Buffer, hash: Buffer): boolean {
  return data.includes(hash.subarray(0, halfBytes)) || data.includes(hash.subarray(halfBytes));
}
