import type { AnswerKind } from "./answer.ts";

// Everybody does the same: a run is ten steps, one after the other, each of
// which returns what it was given; the result of a step is on the disk before
// the next one begins. A run is asked for by one HTTP request, which is answered
// when the run has ended, and all requests come from one process, the same for
// all.

/** Steps of a run, of everybody's. */
export const stepsOfRun = 10;

/** How a run is asked for. */
export interface RunRequest {
  /** Scheme, host and port. */
  readonly origin: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** In base64. */
  readonly body: string;
  /** How the answer says that all steps were done. */
  readonly answer: AnswerKind;
}

/** What a contestant keeps on the disk. */
export interface DiskUse {
  /** Bytes of its data: tables and indexes, or all of its directory where the log cannot be told apart. */
  readonly dataBytes: number;
  /** Bytes of log that were written since it was made; `undefined` where `dataBytes` has it. */
  readonly logBytes: number | undefined;
}

/** A system that executes durable runs and is started for one measurement. */
export interface Contestant {
  /** For example `restate 1.7.12`. */
  readonly name: string;
  /** What was set, and why, a line each. */
  readonly settings: readonly string[];
  /** Starts it on an empty directory of its own. Resolves when it has done a run. */
  start(): Promise<StartedContestant>;
}

/** A contestant that runs. */
export interface StartedContestant {
  readonly request: RunRequest;
  /** The processes that it consists of, without those that descend from them. */
  pids(): readonly number[];
  diskUse(): Promise<DiskUse>;
  /** Ends its processes and removes its directory. */
  stop(): Promise<void>;
}
