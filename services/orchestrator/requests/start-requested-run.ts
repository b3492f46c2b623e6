/**
 * Starts the run that a request on the bus asks for. Invariants:
 *
 * 1. Nothing of a request is read before its token was accepted, for the very
 *    bytes that came with it, by the service that decides at the doors, too.
 * 2. What a call of StartRun is held to, a request is: role, scope, the rules of
 *    the contract. Its org is its principal's; who names another is refused.
 * 3. The key is a part of what was signed. However often a request is delivered,
 *    or put back, there is one run of it.
 * 4. What may go better later waits, and its partition with it. All else never
 *    goes better, and is put aside at once.
 */
import { type RunRequested, RunRequestSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import { RunService, type StartRunRequest } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { trace } from "@opentelemetry/api";
import { UndecodableError } from "../../runtime/bus/consumer/decode.ts";
import type { DecodedEvent } from "../../runtime/bus/consumer/handler.ts";
import { envelopeHeader } from "../../runtime/bus/envelope.ts";
import type { ReceivedEvent } from "../../runtime/bus/event-bus.ts";
import { assertMessage } from "../../runtime/bus/fact-rules.ts";
import { decodeMessage } from "../../runtime/bus/wire-codec.ts";
import { AppError, type FailureReason } from "../../runtime/errors/app-error.ts";
import { assertMayCall } from "../../runtime/interceptor/authorization.ts";
import { parseTraceparent, toTraceparent } from "../../runtime/telemetry/traceparent.ts";
import { isPassing } from "../app/backoff.ts";
import type { Asking } from "../app/graph/start-run.ts";
import type { RequestAuthority } from "./request-authority.ts";

export interface RequestedRunDeps {
  readonly authority: RequestAuthority;
  readonly startRun: (request: StartRunRequest, asking: Asking, signal: AbortSignal) => Promise<unknown>;
}

/**
 * Handles one request.
 *
 * @throws AppError UNAVAILABLE if it cannot be decided about now
 * @throws UndecodableError if it is refused
 */
export async function startRequestedRun(
  deps: RequestedRunDeps,
  requested: DecodedEvent<RunRequested>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await start(deps, requested, signal);
  } catch (thrown) {
    if (!(thrown instanceof AppError) || signal.aborted || unclear.has(thrown.reason)) throw thrown;
    // An equal request is under way.
    const mayPass = isPassing(thrown) || thrown.reason === "IDEMPOTENCY_IN_PROGRESS";
    if (!mayPass) throw new UndecodableError(thrown); // 4
    throw new AppError("UNAVAILABLE", thrown.message, { cause: thrown });
  }
}

async function start(
  { authority, startRun }: RequestedRunDeps,
  { event, fact, orgId }: DecodedEvent<RunRequested>,
  signal: AbortSignal,
): Promise<void> {
  const traceparent = traceparentOf(event);
  const requestId = fact.metadata?.requestId ?? "";
  const principal = await authority.authenticate(fact, { requestId, traceparent }, signal); // 1
  if (principal.orgId !== orgId) {
    throw new AppError("TENANT_MISMATCH", "the request's token is of another org than its key");
  }
  assertMayCall(RunService.method.startRun, principal);
  const request = decodeMessage(RunRequestSchema, fact.request);
  assertMessage("the request", RunRequestSchema, request);
  if (request.run === undefined) throw new AppError("INVALID_ARGUMENT", "run: is required");
  await startRun(request.run, { principal, requestId, traceparent, idempotencyKey: request.idempotencyKey }, signal); // 3
}

/** The trace of who asked; else that of the handling, so that the run is a part of some trace. */
function traceparentOf({ headers }: ReceivedEvent): string {
  const said = headers[envelopeHeader.traceparent] ?? "";
  if (parseTraceparent(said) !== undefined) return said;
  const own = trace.getActiveSpan()?.spanContext();
  return own === undefined ? "" : toTraceparent(own);
}

/** What says nothing of the request: it is tried again, and put aside in the end. */
const unclear: ReadonlySet<FailureReason> = new Set(["DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL"]);
