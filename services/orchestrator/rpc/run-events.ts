/**
 * What readers are told of a run: each entry of its journal as an event, or
 * nothing where an entry is the journal's own business. Pure: outputs that are
 * kept elsewhere are brought along by the caller.
 */
import { create, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampMs, type Value } from "@bufbuild/protobuf/wkt";
import type {
  Entry,
  GraphStep,
  ModelResult,
  Payload,
  RunAccepted,
  StepError,
} from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import {
  type RunError,
  RunErrorSchema,
  type RunEvent,
  RunEventSchema,
  type StepPlace,
  StepPlaceSchema,
} from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { fromUuid } from "../../runtime/ids/id.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import type { Json } from "../domain/json.ts";
import { damaged } from "../domain/run.ts";
import { toValue } from "../store/proto-values.ts";
import type { RunRow } from "../store/run-read-store.ts";

/** How large an output may be to go into an event, in bytes; a message of a stream holds 1 MiB. */
export const maxEventOutputBytes = 512 * 1024;

/** What the events of a run have in common. */
export interface RunFacts {
  readonly runId: string;
  readonly orgId: string;
  readonly name: string;
  readonly requestId: string;
  readonly traceId: string;
  readonly definitionDigest: string;
  /** What its output is: a graph's, or an agent's answer as text or as JSON. */
  readonly output: "graph" | "text" | "json";
}

/** Reads them from a run's row and first entry. */
export function runFacts(run: Pick<RunRow, "runId" | "orgId" | "name">, first: Entry | undefined): RunFacts {
  const accepted = acceptedOf(first);
  return {
    runId: fromUuid("run", run.runId),
    orgId: fromUuid("org", run.orgId),
    name: run.name,
    requestId: accepted.requestId,
    traceId: traceIdOf(accepted.traceparent),
    definitionDigest: definitionDigest(accepted),
    output: outputForm(accepted),
  };
}

/** A run's first entry. Throws DATA_LOSS if it is another one. */
export function acceptedOf(first: Entry | undefined): RunAccepted {
  if (first?.body.case !== "runAccepted") throw damaged("does not begin with its acceptance");
  return first.body.value;
}

/** The digest of the graph, or of the agent's definition. */
export function definitionDigest({ input, agent }: RunAccepted): string {
  return input.case === "graph" ? input.value.digest : (agent?.digest ?? "");
}

/** What the run's output is. */
export function outputForm({ input }: RunAccepted): RunFacts["output"] {
  if (input.case !== "turn") return "graph";
  return input.value.answerSchema === undefined ? "text" : "json";
}

/** The output of a turn. Throws DATA_LOSS if what was held to a schema is no JSON. */
export function answerOutput(form: RunFacts["output"], answer: string): Json {
  if (form !== "json") return { text: answer };
  try {
    return JSON.parse(answer) as Json;
  } catch (cause) {
    throw Object.assign(damaged("has an answer that is no JSON"), { cause });
  }
}

/**
 * Where the steps stand that do not say it in each entry: the calls of a turn,
 * and of an agent's step. Give it each entry of a run, in order.
 */
export class StepPlaces {
  readonly #places = new Map<string, StepPlace>();

  learn({ body }: Entry): void {
    switch (body.case) {
      case "stepStarted": {
        const { stepId, step } = body.value;
        if (step.case === "model" || step.case === "tool") {
          const call = step.case === "tool" ? { call: step.value.index } : {};
          this.#places.set(
            stepId,
            create(StepPlaceSchema, { ...placeInit(step.value.within), round: step.value.round, ...call }),
          );
        }
        break;
      }
      case "stepSucceeded":
      case "stepCancelled":
        this.#places.delete(body.value.stepId);
        break;
      default:
        break;
    }
  }

  /** An empty place if it was never learnt. */
  of(stepId: string): StepPlace {
    return this.#places.get(stepId) ?? create(StepPlaceSchema);
  }
}

/** What an entry's event shows and the entry may keep elsewhere. */
export function shownPayload({ body }: Entry): Payload | undefined {
  if (body.case === "graphEnded" && body.value.outcome.case === "output") return body.value.outcome.value;
  if (body.case === "stepSucceeded" && body.value.result.case === "graph") return body.value.result.value.output;
  return undefined;
}

/** The value of `shownPayload`, or how many bytes it has where it is too large to be shown. */
export type ShownOutput =
  | { readonly case: "output"; readonly value: Value }
  | { readonly case: "largeOutputBytes"; readonly value: bigint };

/**
 * The event of an entry; undefined if it has none.
 *
 * @param places what was learnt from the entries before
 * @param shown what became of `shownPayload`; null unless said
 */
export function toRunEvent(
  facts: RunFacts,
  places: StepPlaces,
  seq: number,
  entry: Entry,
  shown: ShownOutput = { case: "output", value: toValue(null) },
): RunEvent | undefined {
  const body = toBody(facts, places, entry, shown);
  if (body === undefined) return undefined;
  const { runId, orgId, requestId, traceId } = facts;
  return create(RunEventSchema, {
    seq: BigInt(seq),
    runId,
    orgId,
    requestId,
    traceId,
    ...(entry.at === undefined ? {} : { at: entry.at }),
    body,
  });
}

type EventBody = NonNullable<MessageInitShape<typeof RunEventSchema>["body"]>;

function toBody(facts: RunFacts, places: StepPlaces, entry: Entry, shown: ShownOutput): EventBody | undefined {
  const { body } = entry;
  switch (body.case) {
    case "runAccepted":
      return { case: "runAccepted", value: { name: facts.name } };
    case "runStarted":
      return { case: "runStarted", value: { definitionDigest: facts.definitionDigest } };
    case "stepStarted": {
      const { stepId, attempt, step } = body.value;
      places.learn(entry);
      const place = step.case === "graph" ? toPlace(step.value) : places.of(stepId);
      return { case: "stepStarted", value: { step: place, attempt } };
    }
    case "stepWaiting": {
      const { step, wait } = body.value;
      if (wait?.reason.case === "approval") {
        const { expiresAt } = wait;
        const value = { step: step?.name ?? "", prompt: wait.reason.value };
        return { case: "approvalRequested", value: { ...value, ...(expiresAt === undefined ? {} : { expiresAt }) } };
      }
      return { case: "stepWaiting", value: { step: toPlace(step), ...(wait === undefined ? {} : { wait }) } };
    }
    case "stepSucceeded": {
      const { stepId, attempt, result } = body.value;
      if (result.case === "graph") {
        const outcome = result.value.output === undefined ? ({ case: "elements", value: true } as const) : shown;
        return { case: "stepEnded", value: { step: toPlace(result.value.step), attempt, outcome } };
      }
      const step = places.of(stepId);
      places.learn(entry);
      const outcome = callOutcome(result, step);
      return outcome === undefined ? undefined : { case: "stepEnded", value: { step, attempt, outcome } };
    }
    case "stepFailed": {
      const { stepId, attempt, error, retryable, retryAt } = body.value;
      const step = body.value.step === undefined ? places.of(stepId) : toPlace(body.value.step);
      const value = { step, attempt };
      const failure = toRunError(error, step.name);
      if (!retryable) return { case: "stepEnded", value: { ...value, outcome: { case: "error", value: failure } } };
      return { case: "stepRetrying", value: { ...value, error: failure, retryAt: retryAt ?? timeOf(entry) } };
    }
    case "stepSkipped":
      return {
        case: "stepEnded",
        value: { step: toPlace(body.value.step), outcome: { case: "skipped", value: true } },
      };
    case "stepCancelled": {
      const { stepId, step, receipt } = body.value;
      const place = step === undefined ? places.of(stepId) : toPlace(step);
      places.learn(entry);
      return { case: "stepEnded", value: { step: place, outcome: { case: "cancelled", value: receipt } } };
    }
    case "signalReceived":
      return { case: "signalReceived", value: { signal: body.value.signal } };
    case "approvalDecided": {
      const { step, approved, by, reason } = body.value;
      return { case: "approvalDecided", value: { step: step?.name ?? "", approved, by, reason } };
    }
    case "cancelRequested":
      return { case: "runCancelling", value: { reason: body.value.reason, compensate: body.value.compensate } };
    case "runParked": {
      const { parked } = body.value;
      return { case: "runParked", value: parked === undefined ? {} : { parked } };
    }
    case "runResumed":
      return { case: "runResumed", value: { by: body.value.principal?.subject ?? "" } };
    case "runEnded":
      return { case: "runEnded", value: { outcome: turnOutcome(facts, body.value) } };
    case "graphEnded": {
      const { outcome, step } = body.value;
      if (outcome.case === "output") return { case: "runEnded", value: { outcome: shown } };
      if (outcome.case === "cancelled") return { case: "runEnded", value: { outcome } };
      return { case: "runEnded", value: { outcome: { case: "error", value: toRunError(outcome.value, step) } } };
    }
    case "answerRejected":
    case "runFailing":
    case undefined:
      return undefined;
  }
}

type StepSucceededResult = Extract<Entry["body"], { case: "stepSucceeded" }>["value"]["result"];
type StepOutcome = NonNullable<Extract<EventBody, { case: "stepEnded" }>["value"]["outcome"]>;

function callOutcome(
  result: Exclude<StepSucceededResult, { case: "graph" }>,
  step: StepPlace,
): StepOutcome | undefined {
  switch (result.case) {
    case "model":
      return { case: "output", value: toValue(modelOutput(result.value)) };
    case "tool": {
      const { outcome } = result.value;
      if (outcome.case === "value") return { case: "output", value: outcome.value };
      if (outcome.case === "error") return { case: "error", value: toRunError(outcome.value, step.name) };
      return undefined;
    }
    case undefined:
      return undefined;
  }
}

/** What a model said, as JSON: its text, and the calls that it asks for, if it does. */
export function modelOutput({ text, toolCalls }: ModelResult): Json {
  if (toolCalls.length === 0) return { text };
  const calls = toolCalls.map((call) => ({ tool: call.tool, arguments: (call.arguments ?? {}) as JsonObject }));
  return { text, tool_calls: calls as Json };
}

type RunEnded = Extract<Entry["body"], { case: "runEnded" }>["value"];
type EndOutcome = NonNullable<Extract<EventBody, { case: "runEnded" }>["value"]["outcome"]>;

function turnOutcome({ output }: RunFacts, ended: RunEnded): EndOutcome {
  switch (ended.state) {
    case TurnState.SUCCEEDED: {
      const bytes = Buffer.byteLength(ended.answer);
      if (bytes > maxEventOutputBytes) return { case: "largeOutputBytes", value: BigInt(bytes) };
      return { case: "output", value: toValue(answerOutput(output, ended.answer)) };
    }
    case TurnState.CANCELLED:
      return { case: "cancelled", value: true };
    default:
      return { case: "error", value: toRunError(ended.error, "") };
  }
}

/** Why something failed, for readers. */
export function toRunError(error: StepError | undefined, step: string): RunError {
  return create(RunErrorSchema, {
    ...(error === undefined ? {} : { reason: error.reason, message: error.message }),
    step,
  });
}

/** Where a step of a graph stands, for readers. */
export function toPlace(step: GraphStep | undefined): StepPlace {
  return create(StepPlaceSchema, placeInit(step));
}

function placeInit(step: GraphStep | undefined) {
  if (step === undefined) return {};
  const { name, index, compensation } = step;
  return { name, compensation, ...(index === undefined ? {} : { index }) };
}

function timeOf(entry: Entry): Timestamp {
  return timestampFromMs(entry.at === undefined ? 0 : timestampMs(entry.at));
}
