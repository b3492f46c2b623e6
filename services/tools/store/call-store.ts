import type { JsonObject } from "@bufbuild/protobuf";
import type { CallState, Outcome, Progress } from "../domain/call.ts";
import type { WorkerIdentity } from "./worker-store.ts";

export interface BeginCall {
  readonly orgId: string;
  /** Unique in the org. */
  readonly key: string;
  readonly epoch: bigint;
  /** SHA-256 of what is asked for. */
  readonly requestHash: Uint8Array;
  readonly toolId: string;
  readonly digest: string;
  readonly arguments: JsonObject;
  readonly timeoutMs: number;
  /** How long the worker may say nothing of the call; `undefined` for as long as its lease. */
  readonly heartbeatTimeoutMs: number | undefined;
  /** Calls of the org that may be queued or dispatched, with this one. */
  readonly maxOpen: number;
  /** Hand-outs count from here, at least. From 1. */
  readonly attempt: number;
  /** Failures that are void: a recorded outcome that is a failure, and no later one than that, is forgotten. */
  readonly afterFailures: number;
  readonly runId: string;
  readonly traceparent: string;
  readonly requestId: string;
}

/** A call as its reader sees it. */
export interface CallView {
  readonly state: CallState;
  readonly attempt: number;
  readonly workerName: string;
  /** The outcome; of a call that ended or lapsed. */
  readonly outcome: Outcome | undefined;
  readonly progress: Progress | undefined;
  /** What it printed after the position asked for; at most 64 parts. */
  readonly output: readonly string[];
  /** The position of the last of them. */
  readonly position: number;
  /** Whether there is more. */
  readonly hasMore: boolean;
  /** How long until the call is due to be looked at, in milliseconds; never more than a minute. */
  readonly dueInMs: number;
}

/** What a worker reports of a call. */
export interface Report extends WorkerIdentity {
  readonly handoutId: string;
}

/** The calls of tools that workers serve. Every change wakes those who read the call. */
export interface CallStore {
  /**
   * Records a call before anything of it happens, or joins the one that has the
   * key. A new one is handed to a worker that has a place, in the same
   * transaction; one that lapsed is queued again. Raises the call's epoch to the
   * one given.
   *
   * @returns the call's id
   * @throws AppError EPOCH_STALE if the key was seen with a higher epoch;
   * IDEMPOTENCY_KEY_REUSED if with another request; LIMIT_EXCEEDED
   */
  begin(call: BeginCall): Promise<string>;
  /** Hands the queued calls of a definition to workers that have places, until none is left of either. */
  dispatch(callId: string): Promise<void>;
  /** The call as it is now. */
  read(orgId: string, callId: string, afterPosition: number): Promise<CallView>;
  /**
   * Asks a call to stop. What is not handed out ends at once; what is, ends when
   * its worker says so, or by `endCancelled`. A key that is not known is
   * recorded as cancelled, so that it never starts.
   *
   * @returns the call, and its progress if it has ended
   * @throws AppError EPOCH_STALE
   */
  cancel(
    orgId: string,
    key: string,
    epoch: bigint,
    graceMs: number,
  ): Promise<{ readonly callId: string; readonly progress: Progress | undefined }>;
  /** Ends a cancelled call whose grace is over. Changes nothing if it has ended. Returns its progress. */
  endCancelled(orgId: string, callId: string): Promise<Progress>;
  /** Ends a hand-out that was cancelled before its worker was told of it. */
  endUnsent(workerId: string, handoutId: string): Promise<void>;
  /**
   * Appends what a worker's call printed; `seq` counts from 1 and makes a
   * repetition harmless.
   *
   * @returns whether the handler should stop
   * @throws AppError CALL_NOT_FOUND if the call has ended or is not the worker's; INVALID_ARGUMENT if a seq was left out
   */
  appendOutput(report: Report, seq: bigint, text: string): Promise<boolean>;
  /** The definition that a worker's call has. Throws AppError CALL_NOT_FOUND. */
  definitionOf(report: Report): Promise<{ readonly toolId: string; readonly digest: string }>;
  /**
   * Ends a call with what its worker reports; `cancelled` for a handler that
   * stopped. The first report counts. Then the worker is given what waits for
   * its place.
   *
   * @param reportHash SHA-256 of the report, by which a repetition is known
   * @throws AppError CALL_NOT_FOUND if it has ended otherwise, or is not the worker's
   */
  end(report: Report, outcome: Outcome | "cancelled", reportHash: Uint8Array): Promise<void>;
  /** Does for one call what time demands; see `sweep`. */
  settle(callId: string): Promise<void>;
  /**
   * Does what time demands: ends calls past their deadline or grace, lets calls
   * lapse that no worker takes or whose worker fell silent, hands out what waits
   * though there are places.
   */
  sweep(): Promise<void>;
  /** Removes at most 1,000 calls that ended before. Returns how many. */
  prune(endedBefore: Date): Promise<number>;
}
