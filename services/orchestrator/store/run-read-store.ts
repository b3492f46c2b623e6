import type { RunState } from "./append-store.ts";

/** A run's row, as readers see it. Ids are UUIDs as text. */
export interface RunRow {
  readonly runId: string;
  readonly orgId: string;
  /** What its shard belongs to: its session, the run above all its parents, or itself. */
  readonly rootId: string;
  readonly sessionId: string | undefined;
  readonly parentRunId: string | undefined;
  readonly scheduleId: string | undefined;
  /** Of its graph or agent. */
  readonly name: string;
  readonly state: RunState;
  readonly labels: Readonly<Record<string, string>>;
  /** How many entries its journal has. */
  readonly head: number;
  /** The hash of the last of them. */
  readonly chain: Uint8Array;
  /** What readers see beside the journal: a `Turn` if it is one, else a `Run` with little in it; may be empty. */
  readonly view: Uint8Array;
  readonly createdAtMs: number;
  readonly endedAtMs: number | undefined;
}

/** Which runs are meant; all that is said must hold. */
export interface RunSelection {
  /** Any of these states; any at all if empty. */
  readonly states: readonly RunState[];
  readonly name: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly sessionId: string | undefined;
  readonly scheduleId: string | undefined;
  /** Children of this run; those without a parent if undefined, unless `runIds` names them. */
  readonly parentRunId: string | undefined;
  /** These runs; any if empty. */
  readonly runIds: readonly string[];
  /** Inclusive. */
  readonly createdFromMs: number | undefined;
  /** Exclusive. */
  readonly createdBeforeMs: number | undefined;
}

/** An entry of a journal, as stored. */
export interface StoredEntry {
  readonly seq: number;
  readonly kind: number;
  /** A `cadre.orchestrator.journal.v1.Entry`. */
  readonly body: Uint8Array;
}

/** A run's row, and a part of its journal, both as of one moment. */
export interface RunEntries {
  readonly run: RunRow;
  readonly entries: readonly StoredEntry[];
}

/**
 * Reads runs for an org: that org's rows only, each call a transaction. Turns
 * of a session that was deleted are not found.
 */
export interface RunReadStore {
  /** A run; undefined if the org has none of that id. */
  find(orgId: string, runId: string): Promise<RunRow | undefined>;

  /** Runs with a lower id than `before`, newest first. */
  list(orgId: string, selection: RunSelection, before: string | undefined, limit: number): Promise<readonly RunRow[]>;

  /** How many runs there are. */
  count(orgId: string, selection: RunSelection): Promise<number>;

  /** A run and its entries with a higher number than `after`, in order; undefined if there is no such run. */
  readEntries(orgId: string, runId: string, after: number, limit: number): Promise<RunEntries | undefined>;

  /** The entries of these kinds up to a number, in order. */
  readKinds(orgId: string, runId: string, kinds: readonly number[], upTo: number): Promise<readonly StoredEntry[]>;
}
