import { fsyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { readLines } from "./ledger.ts";

/**
 * What a client knows of a run that it asked for:
 *
 * - `attempted`: the call is about to be made.
 * - `acked`: the server answered that it is stored.
 * - `refused`: the server answered that it is not, and never will be.
 * - `unknown`: no answer came; it may be stored or not.
 */
export type ClientPhase = "attempted" | "acked" | "refused" | "unknown";

/** A line of the client's log. */
export interface ClientRecord {
  readonly atMs: number;
  readonly run: string;
  readonly phase: ClientPhase;
  /** The id that the server gave; of `acked`. */
  readonly id?: string;
  /** Why; of `refused` and `unknown`. */
  readonly reason?: string;
}

/** A client's log: on disk before a call is made, and before its answer counts. */
export interface ClientLog {
  write(run: string, phase: ClientPhase, more?: Pick<ClientRecord, "id" | "reason">): void;
  records(): readonly ClientRecord[];
}

/** Opens a log in a directory. */
export function openClientLog(directory: string): ClientLog {
  const path = join(directory, "client.jsonl");
  const file = openSync(path, "a", 0o600);
  return {
    write(run, phase, more = {}) {
      const line: ClientRecord = { atMs: Date.now(), run, phase, ...more };
      writeSync(file, `${JSON.stringify(line)}\n`);
      fsyncSync(file);
    },
    records: () => readLines<ClientRecord>(path),
  };
}
