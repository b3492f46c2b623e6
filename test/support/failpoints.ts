import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { Failpoint } from "../../services/runtime/failpoint/failpoint.ts";
import { readLines } from "./ledger.ts";

/**
 * What happens at a place:
 *
 * - `exit`: the process is killed before the call.
 * - `exit-after`: the call is made, and the process killed before its answer counts.
 * - `throw`: the call is not made, and fails as if its peer were away.
 * - `lose`: the call is made, and its answer is lost: executed, and reported as failed.
 */
export const failpointActions = ["exit", "exit-after", "throw", "lose"] as const;
export type FailpointAction = (typeof failpointActions)[number];

/** What a process is told. */
export interface Armed {
  readonly name: Failpoint;
  readonly action: FailpointAction;
  /** At which time from now on, from 1, and once; 0 takes the order back. */
  readonly nth: number;
}

/** What a process did. */
export interface Fired {
  readonly atMs: number;
  readonly pid: number;
  readonly name: Failpoint;
  readonly action: FailpointAction;
}

/** The named places of the processes of a server that was started with `environment`. */
export interface Failpoints {
  readonly environment: Readonly<Record<string, string>>;
  /** Has a process do something at a place, once. */
  arm(pid: number, order: Armed): Promise<void>;
  /** The same for whichever process starts next, at each of these places. */
  armAtStart(...orders: readonly Armed[]): void;
  /** How often a process reached each place. */
  hits(pid: number): Promise<Readonly<Partial<Record<Failpoint, number>>>>;
  /** What was done so far, in all processes. */
  fired(): readonly Fired[];
  dispose(): void;
}

/** Prepares a directory for the processes' sockets. */
export function openFailpoints(): Failpoints {
  // Short: the path of a socket has a hundred bytes.
  const directory = mkdtempSync(join(tmpdir(), "fp-"));
  async function ask(pid: number, order: Armed | null): Promise<Partial<Record<Failpoint, number>>> {
    const socket = connect(join(directory, `${pid}.sock`));
    await once(socket, "connect");
    socket.write(`${JSON.stringify(order)}\n`);
    const answer = await text(socket);
    if (answer === "")
      throw Object.assign(new Error(`process ${pid} ended before it answered`), { code: "ECONNRESET" });
    return JSON.parse(answer) as Partial<Record<Failpoint, number>>;
  }
  return {
    environment: {
      NODE_OPTIONS: `--import=${new URL("failpoints-hook.ts", import.meta.url).href}`,
      FAILPOINTS: directory,
    },
    async arm(pid, order) {
      await ask(pid, order);
    },
    armAtStart: (...orders) => writeFileSync(join(directory, "at-start.json"), JSON.stringify(orders)),
    hits: (pid) => ask(pid, null),
    fired() {
      const file = join(directory, "fired.jsonl");
      return existsSync(file) ? readLines<Fired>(file) : [];
    },
    dispose: () => rmSync(directory, { recursive: true }),
  };
}
