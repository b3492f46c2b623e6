import { create, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import {
  EntrySchema,
  type GraphStep,
  CancelCause as ProtoCancelCause,
  type Entry as ProtoEntry,
  type StepError as ProtoStepError,
  RunAcceptedSchema,
  RunStartedSchema,
} from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import type { CancelCause, Entry, EntryBody, RunEnd, StepPlace, ToolOutcome } from "../domain/entry.ts";
import type { Json, JsonObject } from "../domain/json.ts";
import { damaged } from "../domain/run.ts";
import {
  type EntryInit,
  fromGraphAccepted,
  fromGraphBody,
  fromGraphFailure,
  fromGraphResult,
  fromGraphStarted,
  fromPlace,
  toGraphBody,
  toolsOf,
  toPlace,
  toProtoAgent,
} from "./graph-entry-codec.ts";
import { fromProtoAgent, fromProtoError, fromProtoTool, toProtoError, toStruct, toValue } from "./proto-values.ts";
import { withEncoded } from "./with-encoded.ts";

/** The kinds of entries, as stored: the numbers of the fields of `Entry.body`. */
export const entryKind = {
  "run.accepted": 10,
  "run.started": 11,
  "step.started": 12,
  "step.succeeded": 13,
  "step.failed": 14,
  "answer.rejected": 15,
  "cancel.requested": 16,
  "run.ended": 17,
  "graph.accepted": 10,
  "graph.started": 11,
  "graph.step.started": 12,
  "graph.step.succeeded": 13,
  "graph.step.failed": 14,
  "step.waiting": 18,
  "signal.received": 19,
  "approval.decided": 20,
  "step.skipped": 21,
  "step.cancelled": 22,
  "run.parked": 23,
  "run.resumed": 24,
  "run.failing": 25,
  "graph.ended": 26,
} as const satisfies Record<EntryBody["type"], number>;

/** Encodes an entry for the journal. */
export function encodeEntry(entry: Entry): Uint8Array {
  return toBinary(EntrySchema, create(EntrySchema, { at: timestampFromMs(entry.atMs), body: toBody(entry.body) }));
}

/** Decodes an entry of the journal. Throws DATA_LOSS if the bytes are none. */
export function decodeEntry(bytes: Uint8Array): Entry {
  let proto: ProtoEntry;
  try {
    proto = fromBinary(EntrySchema, bytes);
  } catch (cause) {
    throw Object.assign(damaged("has an entry that cannot be read"), { cause });
  }
  if (proto.at === undefined) throw damaged("has an entry without a time");
  return { atMs: timestampMs(proto.at), body: fromBody(proto.body) };
}

function toBody(body: EntryBody): EntryInit["body"] {
  switch (body.type) {
    case "run.accepted":
      return {
        case: "runAccepted",
        value: withEncoded(
          create(RunAcceptedSchema, {
            sessionId: body.sessionId,
            requestId: body.requestId,
            traceparent: body.traceparent,
            agent: toProtoAgent(body.agent),
            input: {
              case: "turn",
              value: {
                text: body.text,
                leavesOutRunIds: [...body.leavesOut],
                ...(body.answerSchema === undefined ? {} : { answerSchema: toStruct(body.answerSchema) }),
              },
            },
          }),
          [RunAcceptedSchema.field.principal, body.principal],
        ),
      };
    case "run.started":
      return {
        case: "runStarted",
        value: withEncoded(
          create(RunStartedSchema, {
            contextTokens: BigInt(body.contextTokens),
            caps: {
              toolRounds: body.caps.toolRounds,
              tokens: BigInt(body.caps.tokens),
              durationMs: BigInt(body.caps.durationMs),
            },
          }),
          ...toolsOf(body),
        ),
      };
    case "step.started": {
      const { plan } = body;
      return {
        case: "stepStarted",
        value: {
          stepId: body.stepId,
          attempt: body.attempt,
          step:
            plan.kind === "model"
              ? {
                  case: "model",
                  value: { round: plan.round, turnsLeftOut: plan.turnsLeftOut, ...withinOf(plan.within) },
                }
              : { case: "tool", value: { round: plan.round, index: plan.index, ...withinOf(plan.within) } },
        },
      };
    }
    case "step.succeeded": {
      const { result } = body;
      return {
        case: "stepSucceeded",
        value: {
          stepId: body.stepId,
          attempt: body.attempt,
          result:
            result.kind === "model"
              ? {
                  case: "model",
                  value: {
                    text: result.text,
                    toolCalls: result.toolCalls.map((call) => ({
                      callId: call.callId,
                      tool: call.tool,
                      arguments: toStruct(call.arguments),
                      malformedArguments: call.malformed,
                    })),
                    inputTokens: BigInt(result.inputTokens),
                    outputTokens: BigInt(result.outputTokens),
                  },
                }
              : {
                  case: "tool",
                  value: {
                    outcome:
                      result.outcome.type === "value"
                        ? { case: "value", value: toValue(result.outcome.value) }
                        : { case: "error", value: toProtoError(result.outcome.error) },
                  },
                },
        },
      };
    }
    case "step.failed":
      return {
        case: "stepFailed",
        value: {
          stepId: body.stepId,
          attempt: body.attempt,
          error: toProtoError(body.error),
          retryable: body.retryable,
        },
      };
    case "answer.rejected":
      return { case: "answerRejected", value: { stepId: body.stepId, problems: body.problems } };
    case "cancel.requested":
      return {
        case: "cancelRequested",
        value: {
          cause: causeNumber[body.cause],
          requestId: body.requestId,
          reason: body.reason,
          compensate: body.compensate,
        },
      };
    case "run.ended": {
      const { end } = body;
      return {
        case: "runEnded",
        value: {
          state: endState[end.state],
          answer: end.state === "succeeded" ? end.answer : "",
          ...(end.state === "failed" ? { error: toProtoError(end.error) } : {}),
          toolsMayStillRun: end.state === "succeeded" ? [] : [...end.toolsMayStillRun],
          started: body.started,
        },
      };
    }
    default:
      return toGraphBody(body);
  }
}

function fromBody(body: ProtoEntry["body"]): EntryBody {
  switch (body.case) {
    case "runAccepted": {
      const { value } = body;
      if (value.input.case === "graph") return fromGraphAccepted(value, value.input.value);
      if (value.principal === undefined || value.agent?.definition === undefined || value.input.case !== "turn") {
        throw damaged("has an acceptance that is not whole");
      }
      return {
        type: "run.accepted",
        sessionId: value.sessionId,
        principal: toBinary(PrincipalSchema, value.principal),
        requestId: value.requestId,
        traceparent: value.traceparent,
        agent: fromProtoAgent(value.agent, value.agent.definition),
        text: value.input.value.text,
        answerSchema: value.input.value.answerSchema as JsonObject | undefined,
        leavesOut: value.input.value.leavesOutRunIds,
      };
    }
    case "runStarted": {
      const { tools, contextTokens, caps } = body.value;
      // Only a turn has caps of its own.
      if (caps === undefined) return fromGraphStarted(body.value);
      return {
        type: "run.started",
        tools: tools.map(fromProtoTool),
        contextTokens: Number(contextTokens),
        caps: { toolRounds: caps.toolRounds, tokens: Number(caps.tokens), durationMs: Number(caps.durationMs) },
      };
    }
    case "stepStarted": {
      const { stepId, attempt, step } = body.value;
      switch (step.case) {
        case "model":
          return {
            type: "step.started",
            stepId,
            attempt,
            plan: {
              kind: "model",
              round: step.value.round,
              turnsLeftOut: step.value.turnsLeftOut,
              within: fromWithin(step.value.within),
            },
          };
        case "tool":
          return {
            type: "step.started",
            stepId,
            attempt,
            plan: {
              kind: "tool",
              round: step.value.round,
              index: step.value.index,
              within: fromWithin(step.value.within),
            },
          };
        case "graph":
          return { type: "graph.step.started", stepId, attempt, place: fromPlace(step.value) };
        default:
          throw damaged("starts a step of an unknown kind");
      }
    }
    case "stepSucceeded": {
      const { stepId, attempt, result } = body.value;
      switch (result.case) {
        case "model":
          return {
            type: "step.succeeded",
            stepId,
            attempt,
            result: {
              kind: "model",
              text: result.value.text,
              toolCalls: result.value.toolCalls.map((call) => ({
                callId: call.callId,
                tool: call.tool,
                arguments: (call.arguments ?? {}) as JsonObject,
                malformed: call.malformedArguments,
              })),
              inputTokens: Number(result.value.inputTokens),
              outputTokens: Number(result.value.outputTokens),
            },
          };
        case "tool":
          return {
            type: "step.succeeded",
            stepId,
            attempt,
            result: { kind: "tool", outcome: fromOutcome(result.value.outcome) },
          };
        case "graph":
          return fromGraphResult(stepId, attempt, result.value);
        default:
          throw damaged("has a result of an unknown kind");
      }
    }
    case "stepFailed":
      if (body.value.step !== undefined) return fromGraphFailure(body.value, body.value.step);
      return {
        type: "step.failed",
        stepId: body.value.stepId,
        attempt: body.value.attempt,
        error: fromProtoError(body.value.error),
        retryable: body.value.retryable,
      };
    case "answerRejected":
      return { type: "answer.rejected", stepId: body.value.stepId, problems: body.value.problems };
    case "cancelRequested":
      return {
        type: "cancel.requested",
        cause: causeName.get(body.value.cause) ?? "caller",
        requestId: body.value.requestId,
        reason: body.value.reason,
        compensate: body.value.compensate,
      };
    case "runEnded":
      return { type: "run.ended", started: body.value.started, end: fromEnd(body.value) };
    case undefined:
      throw damaged("has an entry of an unknown kind");
    default:
      return fromGraphBody(body);
  }
}

function withinOf(within: StepPlace | undefined): { within?: ReturnType<typeof toPlace> } {
  return within === undefined ? {} : { within: toPlace(within) };
}

function fromWithin(within: GraphStep | undefined): StepPlace | undefined {
  return within === undefined ? undefined : fromPlace(within);
}

function fromEnd(end: Extract<ProtoEntry["body"], { case: "runEnded" }>["value"]): RunEnd {
  switch (end.state) {
    case TurnState.SUCCEEDED:
      return { state: "succeeded", answer: end.answer };
    case TurnState.FAILED:
      return { state: "failed", error: fromProtoError(end.error), toolsMayStillRun: end.toolsMayStillRun };
    case TurnState.CANCELLED:
      return { state: "cancelled", toolsMayStillRun: end.toolsMayStillRun };
    default:
      throw damaged("ends in an unknown state");
  }
}

function fromOutcome(
  outcome:
    | { case: "value"; value: ReturnType<typeof toValue> }
    | { case: "error"; value: ProtoStepError }
    | { case: undefined },
): ToolOutcome {
  switch (outcome.case) {
    case "value":
      return { type: "value", value: toJson(ValueSchema, outcome.value) as Json };
    case "error":
      return { type: "error", error: fromProtoError(outcome.value) };
    default:
      throw damaged("has a tool result without an outcome");
  }
}

const endState = {
  succeeded: TurnState.SUCCEEDED,
  failed: TurnState.FAILED,
  cancelled: TurnState.CANCELLED,
} as const;

const causeNumber = {
  caller: ProtoCancelCause.CALLER,
  interrupted: ProtoCancelCause.INTERRUPTED,
  deleted: ProtoCancelCause.DELETED,
  "rolled-back": ProtoCancelCause.ROLLED_BACK,
  parent: ProtoCancelCause.PARENT,
  budget: ProtoCancelCause.BUDGET,
} as const satisfies Record<CancelCause, ProtoCancelCause>;

const causeName: ReadonlyMap<ProtoCancelCause, CancelCause> = new Map(
  Object.entries(causeNumber).map(([name, number]) => [number, name as CancelCause]),
);
