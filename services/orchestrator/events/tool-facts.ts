import { create } from "@bufbuild/protobuf";
import { type ToolCalled, ToolCalledSchema, ToolCallOutcome } from "@cadre/gen/cadre/events/v1/tool_pb";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import type { Entry } from "../domain/entry.ts";
import { factId } from "../domain/step-id.ts";
import { type JournaledEntry, metadataOf } from "./fact-metadata.ts";
import type { RunOutline } from "./run-outline.ts";

/** The fact that an entry states about a tool that its run called; undefined for an entry that states none. */
export function toToolCalled(journaled: JournaledEntry, outline: RunOutline): ToolCalled | undefined {
  const { runId, seq, entry, origin } = journaled;
  const call = callOf(entry, outline);
  if (call === undefined) return undefined;
  const { reason, tool, ...said } = call;
  return create(ToolCalledSchema, {
    ...said,
    // In a turn it is what a model wrote, which can be anything.
    tool: tool.slice(0, maxToolCharacters).toWellFormed(),
    metadata: metadataOf(journaled, factId(runId, "tool", seq), seq),
    runId,
    sessionId: origin.sessionId,
    ...(reason === undefined ? {} : { reason: reasonNumber(reason) }),
  });
}

const maxToolCharacters = 128;

interface Call {
  readonly stepId: string;
  readonly tool: string;
  readonly attempt: number;
  readonly outcome: ToolCallOutcome;
  readonly reason?: FailureReason;
}

function callOf({ body }: Entry, outline: RunOutline): Call | undefined {
  switch (body.type) {
    case "step.succeeded": {
      const { stepId, attempt, result } = body;
      if (result.kind !== "tool") return undefined;
      const call = { stepId, tool: outline.callOf(stepId)?.tool ?? "", attempt };
      return result.outcome.type === "value"
        ? { ...call, outcome: ToolCallOutcome.SUCCEEDED }
        : { ...call, outcome: ToolCallOutcome.FAILED, reason: result.outcome.error.reason };
    }
    case "graph.step.succeeded": {
      const tool = outline.toolAt(body.place);
      if (tool === undefined || body.carried) return undefined;
      return { stepId: body.stepId, tool, attempt: body.attempt, outcome: ToolCallOutcome.SUCCEEDED };
    }
    case "graph.step.failed": {
      const tool = outline.toolAt(body.place);
      if (tool === undefined) return undefined;
      const { stepId, attempt, error } = body;
      return { stepId, tool, attempt, outcome: ToolCallOutcome.FAILED, reason: error.reason };
    }
    case "step.cancelled": {
      const tool = outline.toolAt(body.place);
      if (tool === undefined) return undefined;
      return { stepId: body.stepId, tool, attempt: 0, outcome: ToolCallOutcome.CANCELLED };
    }
    default:
      return undefined;
  }
}
