import { create, toBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type TurnError,
  TurnErrorSchema,
  TurnState,
  type Usage,
  UsageSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import {
  type Turn,
  TurnSchema,
  type TurnToolCall,
  TurnToolCallSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { outcomeText } from "../domain/conversation.ts";
import type { StepError } from "../domain/entry.ts";
import type { Run } from "../domain/run.ts";
import { toStruct, toValue } from "../store/proto-values.ts";

/** A run as readers see it. */
export function toTurn(run: Run, afterSeq: number): Turn {
  const end = run.ended?.end;
  return create(TurnSchema, {
    turnId: run.runId,
    sessionId: run.accepted.sessionId,
    state: turnState(run),
    text: run.accepted.text,
    answer: end?.state === "succeeded" ? end.answer : "",
    toolCalls: toolCalls(run),
    ...(end?.state === "failed" ? { error: toTurnError(end.error) } : {}),
    usage: turnUsage(run),
    model: run.accepted.agent.model,
    agentRevision: run.accepted.agent.revision,
    createdAt: timestampFromMs(run.acceptedAtMs),
    ...(run.started === undefined ? {} : { startedAt: timestampFromMs(run.started.atMs) }),
    ...(run.ended === undefined ? {} : { endedAt: timestampFromMs(run.ended.atMs) }),
    afterSeq: BigInt(afterSeq),
  });
}

/** The stored form of `toTurn`. */
export function encodeTurnView(run: Run, afterSeq: number): Uint8Array {
  return toBinary(TurnSchema, toTurn(run, afterSeq));
}

/** What a run used, for readers. */
export function turnUsage(run: Run): Usage {
  return create(UsageSchema, {
    inputTokens: BigInt(run.usage.inputTokens),
    outputTokens: BigInt(run.usage.outputTokens),
    modelCalls: run.usage.modelCalls,
    toolCalls: run.usage.toolCalls,
    duration: durationFromMs(durationOf(run)),
  });
}

/** How long a run took, in milliseconds; 0 while it has not ended. */
export function durationOf(run: Run): number {
  return run.started === undefined || run.ended === undefined ? 0 : Math.max(0, run.ended.atMs - run.started.atMs);
}

/** A failure, for readers. */
export function toTurnError(error: StepError): TurnError {
  return create(TurnErrorSchema, { reason: reasonNumber(error.reason), message: error.message });
}

/** How far a run is, for readers. */
export function turnState(run: Run): TurnState {
  switch (run.ended?.end.state) {
    case "succeeded":
      return TurnState.SUCCEEDED;
    case "failed":
      return TurnState.FAILED;
    case "cancelled":
      return TurnState.CANCELLED;
    case undefined:
      return run.started === undefined ? TurnState.QUEUED : TurnState.RUNNING;
  }
}

/** How large the results of a turn may be for readers, in bytes: a turn has to fit a message. The events have all. */
const maxResultBytes = 2 * 1024 * 1024;

function toolCalls(run: Run): TurnToolCall[] {
  let bytes = 0;
  return run.rounds.flatMap(
    (round) =>
      round.result?.toolCalls.flatMap((call, index) => {
        const step = round.tools[index];
        if (step === undefined) return [];
        const outcome =
          step.outcome ??
          (run.ended === undefined
            ? undefined
            : ({ type: "error", error: { reason: "CANCELLED", message: "the call was cancelled" } } as const));
        return [
          create(TurnToolCallSchema, {
            stepId: step.stepId,
            tool: call.tool,
            arguments: toStruct(call.arguments),
            ...(outcome?.type === "value" && (bytes += Buffer.byteLength(outcomeText(outcome))) <= maxResultBytes
              ? { result: toValue(outcome.value) }
              : {}),
            ...(outcome?.type === "error" ? { error: toTurnError(outcome.error) } : {}),
          }),
        ];
      }) ?? [],
  );
}
