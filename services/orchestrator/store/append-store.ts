/** What one call of `append` stores, already numbered and hashed. UUIDs are text. */
export interface Batch {
  /** How many batches the writer stored before. */
  readonly number: bigint;
  readonly shards: readonly { readonly shard: number; readonly epoch: bigint }[];
  readonly newRuns: readonly NewRun[];
  readonly entries: readonly NumberedEntry[];
  readonly heads: readonly HeadMove[];
  readonly sessions: readonly SessionMove[];
  readonly events: readonly NumberedEvent[];
  readonly replies: readonly Reply[];
  readonly answered: readonly AnsweredCommand[];
  /** Whether there may be other processes, which are to hear of it. */
  readonly told: boolean;
}

/** A run to create. */
export interface NewRun {
  readonly runId: string;
  /** What its shard belongs to: a session, a run, or itself. */
  readonly rootId: string;
  readonly shard: number;
  /** Of a root run; the others are of their root's org. */
  readonly orgId: string | undefined;
  /** The session that it is a turn of. */
  readonly sessionId: string | undefined;
  readonly parentRunId: string | undefined;
  /** Counts the session's runs from 1. */
  readonly ordinal: number | undefined;
  /** Of its graph or agent. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly scheduleId: string | undefined;
  /** What readers see beside the journal. */
  readonly view: Uint8Array;
}

/** An entry with its place in its run. */
export interface NumberedEntry {
  readonly runId: string;
  readonly seq: number;
  readonly kind: number;
  readonly body: Uint8Array;
  readonly hash: Uint8Array;
}

/** Where a run's journal ended, and where it ends with the batch. */
export interface HeadMove {
  readonly runId: string;
  readonly from: number;
  readonly previous: Uint8Array;
  readonly to: number;
  readonly chain: Uint8Array;
  readonly state: RunState;
  /** When something of it is due, in milliseconds since the epoch on the database's clock. */
  readonly wakeAtMs: number | undefined;
  /** What readers see beside the journal; undefined leaves it. */
  readonly view: Uint8Array | undefined;
}

/** How far a run is, as its row says it: the numbers of RunState in the contract. */
export const runState = { running: 1, waiting: 2, parked: 3, succeeded: 4, failed: 5, cancelled: 6 } as const;

export type RunState = (typeof runState)[keyof typeof runState];

/** Whether nothing follows any more. */
export function hasEnded(state: RunState): boolean {
  return state >= runState.succeeded;
}

/** What runs that ended add to their session. */
export interface UsageDelta {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly modelCalls: number;
  readonly toolCalls: number;
  readonly durationMs: number;
}

/** The sum of what was used. */
export function addUsage(a: UsageDelta | undefined, b: UsageDelta): UsageDelta {
  if (a === undefined) return b;
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    modelCalls: a.modelCalls + b.modelCalls,
    toolCalls: a.toolCalls + b.toolCalls,
    durationMs: a.durationMs + b.durationMs,
  };
}

/** How a session's row changes. */
export interface SessionMove {
  readonly sessionId: string;
  readonly from: number;
  readonly to: number;
  readonly usage: UsageDelta;
  readonly deleted: boolean;
}

/** A session's event with its number. */
export interface NumberedEvent {
  readonly sessionId: string;
  readonly seq: number;
  readonly body: Uint8Array;
}

/** The answer to a command of the inbox. */
export interface Reply {
  readonly commandId: string;
  readonly reply: Uint8Array;
}

/** What a command that is repeated with its key is answered with. */
export interface AnsweredCommand {
  /** The session or root run that it changed. */
  readonly rootId: string;
  readonly method: string;
  readonly keyDigest: Uint8Array;
  readonly requestDigest: Uint8Array;
  readonly response: Uint8Array;
}

/**
 * What became of a batch.
 *
 * - `stored`: it is committed. `unrelayed` entries of the writer wait for the relay.
 * - `refused`: nothing of it is, and nothing will be. `fenced`: the writer or a
 *   shard belongs to somebody else. `expired`: the lease has to be renewed
 *   first. `unavailable`: the same batch may succeed later. `invalid`: it will never.
 * - `repeated`: the writer is not at this batch; see `position`.
 * - `unknown`: the connection was lost; see `position`.
 */
export type AppendOutcome =
  | { readonly type: "stored"; readonly unrelayed: number }
  | {
      readonly type: "refused";
      readonly why: "fenced" | "expired" | "unavailable" | "invalid" | "key-taken";
      readonly cause: unknown;
    }
  | { readonly type: "repeated" }
  | { readonly type: "unknown"; readonly cause: unknown };

/** Where a writer is. */
export interface WriterPosition {
  /** How many batches it stored. */
  readonly batch: bigint;
  readonly fenced: boolean;
}

/** The store of a writer: one call, one transaction, all or nothing. */
export interface AppendStore {
  /** Stores a batch. Never throws. */
  append(writer: bigint, batch: Batch): Promise<AppendOutcome>;
  /** Where the writer is; undefined if its row is gone. Throws UNAVAILABLE. */
  position(writer: bigint): Promise<WriterPosition | undefined>;
  /** The stored heads of runs, to compare with what was sent. Throws UNAVAILABLE. */
  heads(runIds: readonly string[]): Promise<ReadonlyMap<string, { readonly head: number; readonly chain: Uint8Array }>>;
}
