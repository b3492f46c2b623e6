import { create } from "@bufbuild/protobuf";
import {
  AttemptDiscardedSchema,
  ToolDeltaSchema,
  ToolEndedSchema,
  ToolStartedSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { outcomeText } from "../domain/conversation.ts";
import type { ToolOutcome } from "../domain/entry.ts";
import { isDeeperThan, maxJsonDepth } from "../domain/json.ts";
import type { Action, PlannedCall } from "../domain/next-action.ts";
import { toStruct, toValue } from "../store/proto-values.ts";
import { DeltaBatcher } from "./delta-batcher.ts";
import type { ToolCaller } from "./ports.ts";
import type { TurnStep } from "./session-journal.ts";
import { traced } from "./traced.ts";
import { follow, type TurnContext } from "./turn-context.ts";
import { toTurnError } from "./turn-view.ts";

/** How much of what a call prints is shown, in characters. */
const maxShownOutput = 256 * 1024;

/** How large a result may be, in bytes: it has to fit an event, and a model. */
const maxResultBytes = 512 * 1024;

/**
 * Executes the calls of a round that have no outcome yet, all at once, and
 * stores each outcome as it comes. Returns when all are stored.
 */
export async function runToolRound(
  context: TurnContext,
  caller: ToolCaller,
  action: Extract<Action, { type: "tools" }>,
): Promise<void> {
  const { turn, journal } = context;
  const { round, calls } = action;
  turn.signal.throwIfAborted();
  // A cancellation that is being stored: what is decided next knows of it.
  if (turn.run.cancel !== undefined) return;
  // Not waited for: the steps' keys do not depend on it, so a call that was
  // made and is not on record yet is joined by the next attempt.
  void follow(
    context,
    journal.store([
      {
        turn,
        entries: calls.map(({ stepId, attempt, index }) => ({
          type: "step.started",
          stepId,
          attempt,
          plan: { kind: "tool", round, index, within: undefined },
        })),
        events: calls.flatMap(startEvents),
      },
    ]),
  );
  const results = await Promise.allSettled(calls.map((planned) => runCall(context, caller, planned)));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

function startEvents(planned: PlannedCall): NonNullable<TurnStep["events"]>[number][] {
  const { stepId, attempt, call, discards } = planned;
  const started = {
    case: "toolStarted" as const,
    value: create(ToolStartedSchema, { stepId, attempt, tool: call.tool, arguments: toStruct(call.arguments) }),
  };
  if (discards === undefined) return [started];
  const discarded = create(AttemptDiscardedSchema, { stepId, attempt: discards });
  return [{ case: "attemptDiscarded", value: discarded }, started];
}

async function runCall(context: TurnContext, caller: ToolCaller, planned: PlannedCall): Promise<void> {
  const { turn, journal, metrics } = context;
  const { stepId, attempt, call } = planned;
  const outcome = await execute(context, caller, planned);
  // Stopped meanwhile: the turn says how that went.
  if (turn.signal.aborted) return;
  await journal.store([
    {
      turn,
      entries: [{ type: "step.succeeded", stepId, attempt, result: { kind: "tool", outcome } }],
      events: [
        {
          case: "toolEnded",
          value: create(ToolEndedSchema, {
            stepId,
            attempt,
            tool: call.tool,
            outcome:
              outcome.type === "value"
                ? { case: "result", value: toValue(outcome.value) }
                : { case: "error", value: toTurnError(outcome.error) },
          }),
        },
      ],
    },
  ]);
  metrics.stepEnded("tool", outcome.type === "value" ? "succeeded" : "failed");
}

async function execute(context: TurnContext, caller: ToolCaller, planned: PlannedCall): Promise<ToolOutcome> {
  const { turn, journal, tools } = context;
  const { stepId, attempt, call } = planned;
  const tool = turn.run.started?.tools.find((candidate) => candidate.name === call.tool);
  // Whatever the model or a tool's output says: only what the run was given.
  if (tool === undefined) {
    return failed("TOOL_NOT_GRANTED", "no such tool is available here");
  }
  if (call.malformed !== "") {
    return failed("TOOL_ARGUMENTS_INVALID", `the arguments are no JSON object of at most ${maxJsonDepth} levels`);
  }
  let shown = 0;
  const batcher = new DeltaBatcher((text) => {
    if (turn.signal.aborted) return;
    const event = { case: "toolDelta" as const, value: create(ToolDeltaSchema, { stepId, attempt, text }) };
    void follow(context, journal.store([{ turn, events: [event] }]));
  });
  const onOutput = (text: string): void => {
    if (shown >= maxShownOutput) return;
    batcher.add(text.slice(0, maxShownOutput - shown));
    shown += text.length;
    if (shown >= maxShownOutput) batcher.add(`\n[only the first ${maxShownOutput} characters are shown]`);
  };
  try {
    const outcome = await traced(
      context.tracer,
      "cadre.step.tool",
      { "cadre.tool": call.tool, "cadre.attempt": attempt },
      () => tools.execute(caller, { tool, stepId, attempt, arguments: call.arguments, onOutput }, turn.signal),
    );
    batcher.flush();
    if (outcome.type === "value" && isDeeperThan(outcome.value, maxJsonDepth)) {
      return failed("TOOL_RESULT_INVALID", `the result has more than ${maxJsonDepth} levels`);
    }
    if (Buffer.byteLength(outcomeText(outcome)) > maxResultBytes) {
      return failed("TOOL_RESULT_INVALID", `the result is larger than ${maxResultBytes} bytes`);
    }
    return outcome;
  } finally {
    batcher.discard();
  }
}

function failed(
  reason: "TOOL_NOT_GRANTED" | "TOOL_ARGUMENTS_INVALID" | "TOOL_RESULT_INVALID",
  message: string,
): ToolOutcome {
  return { type: "error", error: { reason, message } };
}
