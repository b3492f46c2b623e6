import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import type { CreateSessionRequest, CreateSessionResponse } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import type { PinnedAgent } from "../domain/entry.ts";
import type { Run } from "../domain/run.ts";

/** A session as it is stored. Ids are UUIDs as text. */
export interface StoredSession {
  readonly sessionId: string;
  readonly orgId: string;
  readonly shard: number;
  readonly agentId: string;
  readonly title: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly busy: boolean;
  readonly lastSeq: number;
  readonly usage: {
    readonly inputTokens: number;
    readonly outputTokens: number;
    readonly modelCalls: number;
    readonly toolCalls: number;
    readonly durationMs: number;
  };
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

/** A session to create. */
export interface NewSession {
  readonly sessionId: string;
  readonly agentId: string;
  readonly title: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A run as it is stored, with its journal checked and folded. */
export interface StoredRun {
  readonly run: Run;
  readonly ordinal: number;
  readonly chain: Uint8Array;
  /** The run as readers saw it when it was accepted or ended. */
  readonly view: Uint8Array;
}

/** What the owner of a session needs to go on with it. */
export interface SessionState {
  readonly session: StoredSession;
  /** Runs that have not ended, in order. */
  readonly open: readonly StoredRun[];
  /** Runs that have not ended and whose journals are damaged: to be parked. */
  readonly damaged: readonly DamagedTurn[];
  /** The highest ordinal of a run; 0 if there is none. */
  readonly lastOrdinal: number;
}

/** A turn that cannot be gone on with, and why. */
export interface DamagedTurn {
  /** A UUID. */
  readonly runId: string;
  readonly message: string;
}

/** A session to create, and the request that asks for it. */
export interface CreateSessionCall {
  readonly orgId: string;
  readonly session: NewSession;
  readonly maxSessions: number;
  /** The caller's key; empty for none. */
  readonly idempotencyKey: string;
  readonly request: CreateSessionRequest;
}

/**
 * Reads sessions, runs and events; creates sessions. What takes an `orgId` sees
 * that org's rows only and runs in a transaction of its own; what does not is
 * the engine's, for sessions that this process owns.
 */
export interface SessionStore {
  /**
   * Creates a session, unless the org has as many as it may. One transaction;
   * with a key, a repeated request gets the first one's answer.
   *
   * @param answer makes the answer from the stored session
   * @throws AppError LIMIT_EXCEEDED, IDEMPOTENCY_KEY_REUSED
   */
  create(
    call: CreateSessionCall,
    answer: (session: StoredSession) => CreateSessionResponse,
  ): Promise<CreateSessionResponse>;

  /** A session; undefined if the org has none of that id. */
  find(orgId: string, sessionId: string): Promise<StoredSession | undefined>;

  /** Sessions with a lower id than `before`, newest first. */
  list(orgId: string, before: string | undefined, limit: number): Promise<readonly StoredSession[]>;

  /** A run of a session as readers see it now; undefined if there is none. */
  findRun(orgId: string, sessionId: string, runId: string): Promise<StoredView | undefined>;

  /** Runs of a session with a higher ordinal than `after`, oldest first. */
  listRuns(orgId: string, sessionId: string, after: number, limit: number): Promise<readonly StoredView[]>;

  /** Events of a session with a higher number than `after`; undefined if the org has no such session any more. */
  readEvents(
    orgId: string,
    sessionId: string,
    after: number,
    limit: number,
  ): Promise<readonly SessionEvent[] | undefined>;

  /** Everything that the owner of a session needs; undefined if it does not exist. */
  load(sessionId: string): Promise<SessionState | undefined>;

  /** Ended runs of a session with a lower ordinal than `before`, newest first. Throws DATA_LOSS for a damaged journal. */
  loadEnded(sessionId: string, before: number, limit: number): Promise<readonly StoredRun[]>;

  /** Parks a run of a session whose journal cannot be gone on with. */
  parkDamaged(writer: bigint, runId: string): Promise<void>;

  /** Sessions in the shards that have a run which goes on. */
  listOpen(shards: readonly number[]): Promise<readonly string[]>;

  /** How many turns of an org have not ended, and are not parked. */
  countOpenRuns(orgId: string): Promise<number>;

  /** The agent of a session as it is now. */
  findAgent(orgId: string, agentId: string): Promise<PinnedAgent | undefined>;
}

/** A run for readers: its stored view, and its journal if it goes on. */
export interface StoredView {
  readonly ordinal: number;
  readonly view: Uint8Array;
  readonly run: Run | undefined;
}
