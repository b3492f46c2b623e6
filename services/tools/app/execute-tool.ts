import { createHash } from "node:crypto";
import type { JsonObject } from "@bufbuild/protobuf";
import { AppError } from "../../runtime/errors/app-error.ts";
import { canonicalJson } from "../../runtime/json-schema/canonical-json.ts";
import type { Outcome } from "../domain/call.ts";
import { checkArguments } from "./check-arguments.ts";
import type { ToolsDeps } from "./deps.ts";
import { definitionChanged, executeBuiltIn } from "./execute-built-in.ts";
import { limitOf } from "./org-limits.ts";
import { type CallEvent, watchCall } from "./watch-call.ts";

/** A call that is asked for. Ids are UUIDs. */
export interface ToolCall {
  readonly orgId: string;
  readonly toolId: string;
  readonly digest: string;
  readonly arguments: JsonObject;
  /** As it is stored; see `storedKey`. */
  readonly key: string;
  readonly epoch: bigint;
  readonly attempt: number;
  /** How many failures of the key the caller has on record and wants void. */
  readonly afterFailures: number;
  /** How long it may take; `undefined` for as long as its definition says, which it may never exceed. */
  readonly timeoutMs: number | undefined;
  /** How long its worker may say nothing of it; `undefined` for as long as its lease. */
  readonly heartbeatTimeoutMs: number | undefined;
  readonly runId: string;
  /** Empty for a call that is no step. */
  readonly stepId: string;
  /** The principal that calls. */
  readonly actor: string;
  readonly traceparent: string;
  readonly requestId: string;
}

/**
 * Executes a call, or joins the one that has the key, or tells how that ended.
 * Ending the iteration ends nothing but the iteration.
 *
 * @param options isResumed: whether the caller asks again when it is told
 * SHUTTING_DOWN, so that a replica that goes away need not wait for the call
 * @throws AppError before anything is recorded: TOOL_NOT_FOUND,
 * DEFINITION_CHANGED, TOOL_ARGUMENTS_INVALID, EPOCH_STALE,
 * IDEMPOTENCY_KEY_REUSED; later TOOL_UNAVAILABLE and TOOL_HEARTBEAT_LOST: the
 * same key may ask again
 */
export async function* executeTool(
  deps: ToolsDeps,
  call: ToolCall,
  signal: AbortSignal,
  options: { readonly isResumed?: boolean } = {},
): AsyncGenerator<CallEvent> {
  try {
    const answer = executeBuiltIn(deps, call, signal);
    const events = answer === undefined ? executeByWorker(deps, call, signal, options) : answered(answer);
    for await (const event of events) {
      if (event.type === "ended" && event.isFinal) await deps.audit.ended(call, event.outcome);
      yield event;
    }
  } catch (thrown) {
    await deps.audit.refused(call, thrown);
    throw thrown;
  }
}

async function* answered(outcome: Outcome | Promise<Outcome>): AsyncGenerator<CallEvent> {
  yield { type: "started", workerName: "" };
  yield { type: "ended", outcome: await outcome, isFinal: true };
}

async function* executeByWorker(
  deps: ToolsDeps,
  call: ToolCall,
  signal: AbortSignal,
  options: { readonly isResumed?: boolean },
): AsyncGenerator<CallEvent> {
  const checked = await deps.definitions.get(call.orgId, call.toolId, call.digest);
  if (checked === undefined) {
    const tool = await deps.tools.get(call.orgId, call.toolId);
    throw tool === undefined ? new AppError("TOOL_NOT_FOUND", "no such tool") : definitionChanged();
  }
  checkArguments(checked.input, call.arguments);
  const requestHash = createHash("sha256")
    .update(`${call.toolId} ${call.digest} ${canonicalJson(call.arguments)}`)
    .digest();
  const callId = await deps.calls.begin({
    ...call,
    requestHash,
    timeoutMs: Math.min(checked.definition.timeoutMs, call.timeoutMs ?? Number.POSITIVE_INFINITY),
    maxOpen: await limitOf(deps.limits, call.orgId, "tool_calls"),
  });
  const leaves = options.isResumed === true ? AbortSignal.any([signal, deps.stopping]) : signal;
  for await (const event of watchCall(deps, call.orgId, callId, leaves)) {
    if (event.type === "ended" && !event.isFinal && event.outcome.type === "error") {
      throw new AppError(event.outcome.reason, event.outcome.message, { retryAfterMs: 1_000 });
    }
    yield event;
    if (event.type === "ended") return;
  }
  if (!signal.aborted) throw new AppError("SHUTTING_DOWN", "this replica goes away; the call goes on");
}
