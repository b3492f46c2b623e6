import { create, type DescField, type MessageInitShape, toBinary, toJson } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import {
  type EntrySchema,
  type GraphInput,
  GraphInputSchema,
  type GraphResult,
  type GraphStep,
  PinnedAgentSchema,
  type Entry as ProtoEntry,
  type Payload as ProtoPayload,
  type PinnedAgent as ProtoPinnedAgent,
  type RunAccepted as ProtoRunAccepted,
  type RunStarted as ProtoRunStarted,
  type StepFailed as ProtoStepFailed,
  RunAcceptedSchema,
  RunResumedSchema,
  RunStartedSchema,
} from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { StepReceipt, type StepWait, StepWaitSchema } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { reasonName, reasonNumber } from "../../runtime/errors/failure.ts";
import type {
  EntryBody,
  GraphAccepted,
  GraphEntryBody,
  GraphStarted,
  Payload,
  PinnedAgent,
  PinnedTool,
  Receipt,
  StepPlace,
  Wait,
} from "../domain/entry.ts";
import type { Json } from "../domain/json.ts";
import { damaged } from "../domain/run.ts";
import { encodeGraph, fromProtoGraph, toProtoGraph } from "./graph-codec.ts";
import { fromProtoAgent, fromProtoError, fromProtoTool, toProtoError, toValue } from "./proto-values.ts";
import { withEncoded } from "./with-encoded.ts";

export type EntryInit = MessageInitShape<typeof EntrySchema>;

/** The message of an entry of a graph's run. */
export function toGraphBody(body: GraphEntryBody): NonNullable<EntryInit["body"]> {
  switch (body.type) {
    case "graph.accepted":
      return { case: "runAccepted", value: toAccepted(body) };
    case "graph.started":
      return {
        case: "runStarted",
        value: withEncoded(
          create(RunStartedSchema, {
            agents: body.agents.map(toProtoAgent),
            graphs: Object.fromEntries([...body.graphs].map(([name, graph]) => [name, toProtoGraph(graph)])),
            models: Object.fromEntries([...body.models].map(([name, tokens]) => [name, BigInt(tokens)])),
          }),
          ...toolsOf(body),
        ),
      };
    case "graph.step.started": {
      const { stepId, attempt, place } = body;
      return { case: "stepStarted", value: { stepId, attempt, step: { case: "graph", value: toPlace(place) } } };
    }
    case "graph.step.succeeded": {
      const { stepId, attempt, place, output, inputTokens, outputTokens, signalSeq, carried } = body;
      return {
        case: "stepSucceeded",
        value: {
          stepId,
          attempt,
          result: {
            case: "graph",
            value: {
              step: toPlace(place),
              ...(output === undefined ? {} : { output: toPayload(output) }),
              inputTokens: BigInt(inputTokens),
              outputTokens: BigInt(outputTokens),
              signalSeq,
              carried,
            },
          },
        },
      };
    }
    case "graph.step.failed":
      return {
        case: "stepFailed",
        value: {
          stepId: body.stepId,
          attempt: body.attempt,
          error: toProtoError(body.error),
          retryable: body.retryAtMs !== undefined,
          step: toPlace(body.place),
          ...(body.retryAtMs === undefined ? {} : { retryAt: timestampFromMs(body.retryAtMs) }),
          ...(body.receipt === undefined ? {} : { receipt: receiptNumber[body.receipt] }),
        },
      };
    case "step.waiting":
      return {
        case: "stepWaiting",
        value: { stepId: body.stepId, step: toPlace(body.place), wait: toProtoWait(body.wait) },
      };
    case "step.skipped":
      return { case: "stepSkipped", value: { step: toPlace(body.place) } };
    case "step.cancelled":
      return {
        case: "stepCancelled",
        value: { stepId: body.stepId, step: toPlace(body.place), receipt: receiptNumber[body.receipt] },
      };
    case "signal.received":
      return {
        case: "signalReceived",
        value: { signal: body.signal, payload: toPayload(body.payload), by: body.by, requestId: body.requestId },
      };
    case "approval.decided":
      return {
        case: "approvalDecided",
        value: {
          step: toPlace(body.place),
          approved: body.approved,
          by: body.by,
          reason: body.reason,
          requestId: body.requestId,
        },
      };
    case "run.parked": {
      const { reason, message, diff } = body.parked;
      return { case: "runParked", value: { parked: { reason: reasonNumber(reason), message, diff: [...diff] } } };
    }
    case "run.resumed":
      return {
        case: "runResumed",
        value: withEncoded(create(RunResumedSchema, { requestId: body.requestId }), [
          RunResumedSchema.field.principal,
          body.principal,
        ]),
      };
    case "run.failing":
      return { case: "runFailing", value: { step: body.step, error: toProtoError(body.error) } };
    case "graph.ended": {
      const { end } = body;
      switch (end.state) {
        case "succeeded":
          return { case: "graphEnded", value: { outcome: { case: "output", value: toPayload(end.output) } } };
        case "failed":
          return {
            case: "graphEnded",
            value: { outcome: { case: "error", value: toProtoError(end.error) }, step: end.step },
          };
        case "cancelled":
          return { case: "graphEnded", value: { outcome: { case: "cancelled", value: true } } };
      }
    }
  }
}

/** An entry that only a graph's run has. Throws DATA_LOSS if it is not whole. */
export function fromGraphBody(
  body: Exclude<
    ProtoEntry["body"],
    {
      case:
        | "runAccepted"
        | "runStarted"
        | "stepStarted"
        | "stepSucceeded"
        | "stepFailed"
        | "answerRejected"
        | "cancelRequested"
        | "runEnded"
        | undefined;
    }
  >,
): EntryBody {
  switch (body.case) {
    case "stepWaiting":
      return {
        type: "step.waiting",
        stepId: body.value.stepId,
        place: fromPlace(body.value.step),
        wait: fromWait(body.value.wait),
      };
    case "stepSkipped":
      return { type: "step.skipped", place: fromPlace(body.value.step) };
    case "stepCancelled":
      return {
        type: "step.cancelled",
        stepId: body.value.stepId,
        place: fromPlace(body.value.step),
        receipt: receiptName.get(body.value.receipt) ?? "may-still-run",
      };
    case "signalReceived":
      return {
        type: "signal.received",
        signal: body.value.signal,
        payload: fromPayload(body.value.payload),
        by: body.value.by,
        requestId: body.value.requestId,
      };
    case "approvalDecided": {
      const { step, approved, by, reason, requestId } = body.value;
      return { type: "approval.decided", place: fromPlace(step), approved, by, reason, requestId };
    }
    case "runParked": {
      const { parked } = body.value;
      if (parked === undefined) throw damaged("is parked without a reason");
      const { reason, message, diff } = parked;
      return { type: "run.parked", parked: { reason: reasonName(reason), message, diff } };
    }
    case "runResumed": {
      if (body.value.principal === undefined) throw damaged("is resumed by nobody");
      const principal = toBinary(PrincipalSchema, body.value.principal);
      return { type: "run.resumed", principal, requestId: body.value.requestId };
    }
    case "runFailing":
      return { type: "run.failing", step: body.value.step, error: fromProtoError(body.value.error) };
    case "graphEnded": {
      const { outcome, step } = body.value;
      switch (outcome.case) {
        case "output":
          return { type: "graph.ended", end: { state: "succeeded", output: fromPayload(outcome.value) } };
        case "error":
          return { type: "graph.ended", end: { state: "failed", error: fromProtoError(outcome.value), step } };
        case "cancelled":
          return { type: "graph.ended", end: { state: "cancelled" } };
        default:
          throw damaged("ends in an unknown state");
      }
    }
  }
}

/** The acceptance of a graph's run. */
export function fromGraphAccepted(value: ProtoRunAccepted, { graph, digest, input }: GraphInput): GraphAccepted {
  const { agent, parentRunId, forkedFromRunId } = value;
  if (value.principal === undefined || graph === undefined) throw damaged("has an acceptance that is not whole");
  return {
    type: "graph.accepted",
    principal: toBinary(PrincipalSchema, value.principal),
    requestId: value.requestId,
    traceparent: value.traceparent,
    agent: agent?.definition === undefined ? undefined : fromProtoAgent(agent, agent.definition),
    graph: fromProtoGraph(graph),
    digest,
    input: fromPayload(input),
    labels: value.labels,
    maxSteps: value.maxSteps,
    maxDurationMs: Number(value.maxDurationMs),
    parent: parentRunId === "" ? undefined : { runId: parentRunId, stepId: value.parentStepId },
    depth: value.depth,
    forkedFrom: forkedFromRunId === "" ? undefined : { runId: forkedFromRunId, checkpoint: value.forkedFromCheckpoint },
    scheduleId: value.scheduleId === "" ? undefined : value.scheduleId,
  };
}

/** The start of a graph's run. */
export function fromGraphStarted(value: ProtoRunStarted): GraphStarted {
  return {
    type: "graph.started",
    tools: value.tools.map(fromProtoTool),
    agents: value.agents.map((agent) => {
      if (agent.definition === undefined) throw damaged("pins an agent without a definition");
      return fromProtoAgent(agent, agent.definition);
    }),
    graphs: new Map(Object.entries(value.graphs).map(([name, graph]) => [name, fromProtoGraph(graph)])),
    models: new Map(Object.entries(value.models).map(([name, tokens]) => [name, Number(tokens)])),
  };
}

/** The result of a step of a graph. */
export function fromGraphResult(stepId: string, attempt: number, value: GraphResult): EntryBody {
  return {
    type: "graph.step.succeeded",
    stepId,
    attempt,
    place: fromPlace(value.step),
    output: value.output === undefined ? undefined : fromPayload(value.output),
    inputTokens: Number(value.inputTokens),
    outputTokens: Number(value.outputTokens),
    signalSeq: value.signalSeq,
    carried: value.carried,
  };
}

/** The failure of an attempt of a step of a graph. */
export function fromGraphFailure(value: ProtoStepFailed, step: GraphStep): EntryBody {
  return {
    type: "graph.step.failed",
    stepId: value.stepId,
    attempt: value.attempt,
    place: fromPlace(step),
    error: fromProtoError(value.error),
    retryAtMs: value.retryAt === undefined ? undefined : timestampMs(value.retryAt),
    receipt: receiptName.get(value.receipt),
  };
}

/** The place of a step, as the journal has it. */
export function toPlace({ name, index, compensation }: StepPlace) {
  return { name, compensation, ...(index === undefined ? {} : { index }) };
}

/** The place of a step. Throws DATA_LOSS if it is not said. */
export function fromPlace(step: GraphStep | undefined): StepPlace {
  if (step === undefined) throw damaged("has a step without a place");
  return { name: step.name, index: step.index, compensation: step.compensation };
}

/** What a step waits for, as the contract has it. */
export function toProtoWait(wait: Wait): StepWait {
  switch (wait.for) {
    case "timer":
      return create(StepWaitSchema, { reason: { case: "timerDueAt", value: timestampFromMs(wait.dueAtMs) } });
    case "signal":
      return create(StepWaitSchema, { reason: { case: "signal", value: wait.signal }, ...expiryOf(wait.expiresAtMs) });
    case "approval":
      return create(StepWaitSchema, {
        reason: { case: "approval", value: wait.prompt },
        ...expiryOf(wait.expiresAtMs),
      });
    case "child":
      return create(StepWaitSchema, { reason: { case: "childRunId", value: wait.runId } });
  }
}

function expiryOf(expiresAtMs: number | undefined) {
  return expiresAtMs === undefined ? {} : { expiresAt: timestampFromMs(expiresAtMs) };
}

function fromWait(wait: StepWait | undefined): Wait {
  const expiresAtMs = wait?.expiresAt === undefined ? undefined : timestampMs(wait.expiresAt);
  switch (wait?.reason.case) {
    case "timerDueAt":
      return { for: "timer", dueAtMs: timestampMs(wait.reason.value) };
    case "signal":
      return { for: "signal", signal: wait.reason.value, expiresAtMs };
    case "approval":
      return { for: "approval", prompt: wait.reason.value, expiresAtMs };
    case "childRunId":
      return { for: "child", runId: wait.reason.value };
    default:
      throw damaged("waits for nothing");
  }
}

function toAccepted(body: GraphAccepted): ProtoRunAccepted {
  const accepted = create(RunAcceptedSchema, {
    requestId: body.requestId,
    traceparent: body.traceparent,
    ...(body.agent === undefined ? {} : { agent: toProtoAgent(body.agent) }),
    input: {
      case: "graph" as const,
      value: withEncoded(create(GraphInputSchema, { digest: body.digest, input: toPayload(body.input) }), [
        GraphInputSchema.field.graph,
        encodeGraph(body.graph),
      ]),
    },
    parentRunId: body.parent?.runId ?? "",
    parentStepId: body.parent?.stepId ?? "",
    depth: body.depth,
    forkedFromRunId: body.forkedFrom?.runId ?? "",
    forkedFromCheckpoint: body.forkedFrom?.checkpoint ?? 0,
    scheduleId: body.scheduleId ?? "",
    labels: { ...body.labels },
    maxSteps: body.maxSteps,
    maxDurationMs: BigInt(body.maxDurationMs),
  });
  return withEncoded(accepted, [RunAcceptedSchema.field.principal, body.principal]);
}

/** An agent as the journal has it, with the definition that is encoded already. */
export function toProtoAgent({ agentId, revision, digest, encoded }: PinnedAgent): ProtoPinnedAgent {
  return withEncoded(create(PinnedAgentSchema, { agentId, revision, digest }), [
    PinnedAgentSchema.field.definition,
    encoded,
  ]);
}

/** The tools of a run as the journal has them, encoded already. */
export function toolsOf({ tools }: { readonly tools: readonly PinnedTool[] }): [DescField, Uint8Array][] {
  return tools.map(({ encoded }) => [RunStartedSchema.field.tools, encoded]);
}

function toPayload({ value, blob }: Payload): {
  place:
    | Extract<ProtoPayload["place"], { case: "value" }>
    | { case: "blob"; value: { sha256: Uint8Array<ArrayBuffer>; size: bigint } };
} {
  return blob === undefined
    ? { place: { case: "value", value: toValue(value ?? null) } }
    : { place: { case: "blob", value: { sha256: Uint8Array.from(blob.sha256), size: BigInt(blob.size) } } };
}

/** A value, or where it is kept. Absent is null. */
export function fromPayload(payload: ProtoPayload | undefined): Payload {
  switch (payload?.place.case) {
    case "value":
      return { value: toJson(ValueSchema, payload.place.value) as Json, blob: undefined };
    case "blob": {
      const { sha256, size } = payload.place.value;
      return { value: undefined, blob: { sha256, size: Number(size) } };
    }
    default:
      return { value: null, blob: undefined };
  }
}

const receiptNumber = {
  "not-started": StepReceipt.NOT_STARTED,
  partial: StepReceipt.PARTIAL,
  done: StepReceipt.DONE,
  "may-still-run": StepReceipt.MAY_STILL_RUN,
} as const satisfies Record<Receipt, StepReceipt>;

const receiptName: ReadonlyMap<StepReceipt, Receipt> = new Map(
  Object.entries(receiptNumber).map(([name, number]) => [number, name as Receipt]),
);
