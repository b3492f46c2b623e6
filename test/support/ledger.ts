import { readFileSync } from "node:fs";
import { join } from "node:path";
import { startChild } from "./child.ts";

/** What a tool tells the ledger of itself. */
export interface LedgerCall {
  /** The run, as the test named it. */
  readonly run: string;
  /** The step, as the test named it. */
  readonly step: string;
  readonly key: string;
  readonly attempt: number;
  /** The worker's process id. */
  readonly worker: number;
}

/** A line of the ledger. */
export interface LedgerRecord extends LedgerCall {
  /** Counts from 1. */
  readonly n: number;
  readonly atMs: number;
  /** `called`: a handler began. `effect`: it asked for its effect. */
  readonly type: "called" | "effect";
  /** Whether the effect happened: the first time that its key was seen. */
  readonly applied: boolean;
}

/** A ledger that runs. */
export interface Ledger {
  readonly url: string;
  /** What is on disk. */
  records(): readonly LedgerRecord[];
  stop(): Promise<void>;
}

/** Starts a ledger over a file in a directory. */
export async function startLedger(directory: string): Promise<Ledger> {
  const file = join(directory, "ledger.jsonl");
  const child = startChild(join(import.meta.dirname, "ledger-process.ts"), [file]);
  const port = await child.line();
  return {
    url: `http://127.0.0.1:${port}`,
    records: () => readLines<LedgerRecord>(file),
    async stop() {
      await child.finish();
    },
  };
}

/** Reads a file of JSON lines; a last line that is not whole was not acknowledged, and is left out. */
export function readLines<T>(file: string): readonly T[] {
  const lines = readFileSync(file, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as T);
}
