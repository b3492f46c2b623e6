// Loaded by `--import` into a process under test (`failpoints.ts` makes the
// environment): counts how often each named place is reached, and does there
// what it was told over a socket in the directory FAILPOINTS. What it does is
// on disk before it is done.
import { appendFileSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { isMainThread } from "node:worker_threads";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { type Failpoint, installFailpointHook } from "../../services/runtime/failpoint/failpoint.ts";
import { ConnectionLostError } from "../../services/runtime/postgres/database-error.ts";
import type { Armed, FailpointAction, Fired } from "./failpoints.ts";

const directory = process.env["FAILPOINTS"] ?? "";
const hits = new Map<Failpoint, number>();
const armed = new Map<Failpoint, Armed>();

/** What a boundary fails with by itself when its peer or its store goes away. */
function failure(name: Failpoint, wasSent: boolean): AppError {
  return new AppError("UNAVAILABLE", `failpoint ${name}`, {
    cause: new ConnectionLostError(wasSent, new Error(`failpoint ${name}`)),
    retryAfterMs: 10,
  });
}

function die(): Promise<never> {
  process.kill(process.pid, "SIGKILL");
  // The signal is on its way: nothing more is done here.
  return new Promise(() => undefined);
}

/** The action that is due now, if any. */
function due(name: Failpoint): FailpointAction | undefined {
  const count = (hits.get(name) ?? 0) + 1;
  hits.set(name, count);
  const order = armed.get(name);
  if (order === undefined) return undefined;
  if (order.nth > 1) {
    armed.set(name, { ...order, nth: order.nth - 1 });
    return undefined;
  }
  armed.delete(name);
  const fired: Fired = { atMs: Date.now(), pid: process.pid, name, action: order.action };
  appendFileSync(join(directory, "fired.jsonl"), `${JSON.stringify(fired)}\n`);
  return order.action;
}

function obey(order: Armed): void {
  if (order.nth > 0) armed.set(order.name, order);
  else armed.delete(order.name);
}

/** Orders for whichever process starts next; it takes them away. */
function obeyAtStart(): void {
  const file = join(directory, "at-start.json");
  try {
    for (const order of JSON.parse(readFileSync(file, "utf8")) as readonly Armed[]) obey(order);
    rmSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

if (isMainThread) {
  obeyAtStart();
  installFailpointHook(async (name, call) => {
    switch (due(name)) {
      case "exit":
        return die();
      case "throw":
        throw failure(name, false);
      case "lose":
        await call();
        throw failure(name, true);
      case "exit-after":
        await call();
        return die();
      case undefined:
        return call();
    }
  });
  const server = createServer((socket) => {
    createInterface({ input: socket }).on("line", (line) => {
      const order = JSON.parse(line) as Armed | null;
      if (order !== null) obey(order);
      socket.end(`${JSON.stringify(Object.fromEntries(hits))}\n`);
    });
    socket.on("error", () => undefined); // the test went away
  });
  server.listen(join(directory, `${process.pid}.sock`)).unref();
}
