import type { JsonValue } from "@bufbuild/protobuf";
import type { FailureReason } from "../../runtime/errors/app-error.ts";

/**
 * Where a call is.
 *
 * ```
 *            ┌────────────── lost ──────────────┐
 *            ▼                                  │
 * begin ─▶ queued ── handed out ─▶ dispatched ──┴─▶ ended
 *          │    ▲                                     ▲
 *          ▼    └ same key again                      │
 *        lapsed ──────────── cancelled ───────────────┘
 * ```
 *
 * `queued` waits for a worker, `dispatched` is a worker's, `ended` has its
 * outcome for good, `lapsed` found no worker in time, or its worker fell
 * silent: it is nobody's, and the same key may ask for it again.
 */
export type CallState = "queued" | "dispatched" | "ended" | "lapsed";

/** What came of a call. */
export type Outcome =
  | { readonly type: "result"; readonly value: JsonValue }
  | {
      readonly type: "error";
      readonly reason: FailureReason;
      readonly message: string;
      /** How far it had got, where it was ended from outside. */
      readonly progress?: Progress | undefined;
    };

/** How far a call had got when it was cancelled; see `cadre.tools.v1.ExecutionProgress`. */
export type Progress = "NOT_STARTED" | "PARTIAL" | "DONE" | "MAY_STILL_RUN";

/** Bounds of a call. */
export const callLimits = {
  /** Of arguments, and of a result, as compact JSON in UTF-8. */
  maxJsonBytes: 1_048_576,
  /** Of all that a call prints. */
  maxOutputBytes: 4_194_304,
  /** Workers lost with a call, after which it fails: perhaps it is what ends them. */
  maxLosses: 5,
} as const;

/** Bounds of workers; how many there may be is a limit of the org. */
export const workerLimits = {
  /** How long a registration lives after the last heartbeat. */
  leaseMs: 6_000,
  /** How often a worker sends one. */
  heartbeatMs: 2_000,
} as const;

/** What ends a call whose handler stopped because it was told to, or would have been. */
export const cancelled: Extract<Outcome, { type: "error" }> = {
  type: "error",
  reason: "CANCELLED",
  message: "the call was cancelled",
};

/** What ends a call that lost too many workers. */
export const lost: Outcome = {
  type: "error",
  reason: "TOOL_FAILED",
  message: `the worker was lost ${callLimits.maxLosses} times`,
};

/** What ends a call that took longer than its tool may. */
export const overdue: Extract<Outcome, { type: "error" }> = {
  type: "error",
  reason: "DEADLINE_EXCEEDED",
  message: "the tool took longer than its timeout",
};

/** What a call is told whose worker fell silent. */
export const heartbeatLost: Outcome = {
  type: "error",
  reason: "TOOL_HEARTBEAT_LOST",
  message: "the worker said nothing of the call for longer than its heartbeat timeout",
};

/** What a call is told that no worker serves. */
export const unserved: Outcome = {
  type: "error",
  reason: "TOOL_UNAVAILABLE",
  message: "no worker serves this definition of the tool",
};

/** What a call is told that waited for its tool's whole timeout. */
export const unplaced: Outcome = {
  type: "error",
  reason: "TOOL_UNAVAILABLE",
  message: "all workers of the tool are busy",
};

/** What a reader is told when a call printed more than is kept. */
export const outputTruncated = "\n[output truncated]\n";

/** Whether a value as compact JSON is larger than `maxBytes`. */
export function exceedsBytes(value: JsonValue, maxBytes: number): boolean {
  return Buffer.byteLength(JSON.stringify(value)) > maxBytes;
}
