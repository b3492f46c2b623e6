import { create } from "@bufbuild/protobuf";
import {
  AttemptDiscardedSchema,
  ContextTrimmedSchema,
  TextDeltaSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { backOffMs } from "../../runtime/wait/back-off.ts";
import { estimateTokens, fitContext } from "../domain/conversation.ts";
import type { StepError, ToolCall } from "../domain/entry.ts";
import { isDeeperThan, maxJsonDepth } from "../domain/json.ts";
import { type Action, maxModelFailures, tokensUsed } from "../domain/next-action.ts";
import { type Model, ModelCallError, type ModelRequest } from "../models/model.ts";
import { pause, waits } from "./backoff.ts";
import { DeltaBatcher } from "./delta-batcher.ts";
import type { TurnStep } from "./session-journal.ts";
import { traced } from "./traced.ts";
import { follow, type TurnContext } from "./turn-context.ts";

/** How long an answer may be, in bytes: it has to fit an event. */
const maxAnswerBytes = 512 * 1024;

/** How much text may wait to be stored before the model is read on, in characters. */
const maxUnstoredText = 256 * 1024;

/**
 * Asks the model once and stores what it said. What it writes is shown as it
 * comes. A failure that may pass is stored, too, and the next attempt is
 * another step of the turn.
 */
export async function runModelStep(context: TurnContext, action: Extract<Action, { type: "model" }>): Promise<void> {
  const { turn, journal, models, metrics, log } = context;
  const { run } = turn;
  const model = models.find(run.accepted.agent.model);
  if (model === undefined) throw new AppError("MODEL_NOT_FOUND", `no model ${run.accepted.agent.model} is configured`);
  if (!model.available) throw new AppError("MODEL_KEY_MISSING", `no key for the model ${model.name} is configured`);
  const { request, turnsLeftOut } = await prepare(context, action.stepId);
  turn.signal.throwIfAborted();
  // A cancellation that is being stored: what is decided next knows of it.
  if (turn.run.cancel !== undefined) return;

  const { stepId, attempt, round } = action;
  const events: NonNullable<TurnStep["events"]>[number][] = [];
  if (action.discards !== undefined) {
    events.push({
      case: "attemptDiscarded",
      value: create(AttemptDiscardedSchema, { stepId, attempt: action.discards }),
    });
  }
  if (turnsLeftOut > 0 && run.rounds.at(-1)?.turnsLeftOut !== turnsLeftOut) {
    const contextTokens = BigInt(run.started?.contextTokens ?? 0);
    events.push({ case: "contextTrimmed", value: create(ContextTrimmedSchema, { turnsLeftOut, contextTokens }) });
  }
  // Not waited for: asking a model changes nothing outside, and its text is stored after this.
  void follow(
    context,
    journal.store([
      {
        turn,
        entries: [
          { type: "step.started", stepId, attempt, plan: { kind: "model", round, turnsLeftOut, within: undefined } },
        ],
        events,
      },
    ]),
  );

  const answer = await traced(
    context.tracer,
    "cadre.step.model",
    { "cadre.model": model.name, "cadre.attempt": attempt },
    () => ask(context, model, request, stepId, attempt),
  );
  if (turn.signal.aborted) return;
  if (answer.type === "failed") {
    metrics.stepEnded("model", "failed");
    log.warn({ runId: run.runId, reason: answer.error.reason, retryable: answer.retryable }, "a model call failed");
    const { error, retryable } = answer;
    await journal.store([{ turn, entries: [{ type: "step.failed", stepId, attempt, error, retryable }] }]);
    const failures = turn.run.rounds.at(-1)?.failures ?? 0;
    if (retryable && failures < maxModelFailures) await pause(backOffMs(failures, waits), turn.signal);
    return;
  }
  const { text, toolCalls, inputTokens, outputTokens } = answer;
  await journal.store([
    {
      turn,
      entries: [
        {
          type: "step.succeeded",
          stepId,
          attempt,
          result: { kind: "model", text, toolCalls, inputTokens, outputTokens },
        },
      ],
    },
  ]);
  metrics.stepEnded("model", "succeeded");
}

/** What the model is asked, cut to what it reads. */
async function prepare(
  { turn, history }: TurnContext,
  stepId: string,
): Promise<{ readonly request: ModelRequest; readonly turnsLeftOut: number }> {
  const { run } = turn;
  const { agent, answerSchema } = run.accepted;
  const contextTokens = run.started?.contextTokens ?? 0;
  const tools = (run.started?.tools ?? []).map(({ name, description, inputSchema }) => ({
    name,
    description,
    inputSchema,
  }));
  const fixedTokens =
    estimateTokens(agent.instructions) +
    estimateTokens(JSON.stringify(tools)) +
    (answerSchema === undefined ? 0 : estimateTokens(JSON.stringify(answerSchema)));
  const { turns, older } = await history.before(turn.ordinal, contextTokens);
  const fitted = fitContext(turns, older, run, fixedTokens, contextTokens);
  if (!fitted.fits) {
    throw new AppError(
      "TURN_LIMIT",
      `the turn needs about ${fitted.tokens} tokens, and the model reads ${fitted.budget} besides its answer`,
    );
  }
  return {
    request: { instructions: agent.instructions, messages: fitted.messages, tools, answerSchema, stepId },
    turnsLeftOut: fitted.turnsLeftOut,
  };
}

type Answer =
  | {
      readonly type: "answered";
      readonly text: string;
      readonly toolCalls: readonly ToolCall[];
      readonly inputTokens: number;
      readonly outputTokens: number;
    }
  | { readonly type: "failed"; readonly error: StepError; readonly retryable: boolean };

async function ask(
  context: TurnContext,
  model: Model,
  request: ModelRequest,
  stepId: string,
  attempt: number,
): Promise<Answer> {
  const { turn, journal, metrics, log } = context;
  let unstored = 0;
  let lastStored: Promise<void> = Promise.resolve();
  const batcher = new DeltaBatcher((text) => {
    unstored += text.length;
    const event = { case: "textDelta" as const, value: create(TextDeltaSchema, { stepId, attempt, text }) };
    lastStored = follow(context, journal.store([{ turn, events: [event] }])).then(() => {
      unstored -= text.length;
    });
  });
  // Ends the call also when this function stops reading for a reason of its own.
  const reading = new AbortController();
  const signal = AbortSignal.any([turn.signal, reading.signal]);
  const parts: string[] = [];
  const toolCalls: ToolCall[] = [];
  let bytes = 0;
  const tokensLeft = (turn.run.started?.caps.tokens ?? 0) - tokensUsed(turn.run);
  try {
    for await (const event of model.stream(request, signal)) {
      if (turn.signal.aborted) break;
      switch (event.type) {
        case "text":
          if (parts.length === 0 && turn.run.rounds.length === 1 && attempt === 1) {
            metrics.firstText(journal.now() - turn.run.acceptedAtMs);
          }
          bytes += Buffer.byteLength(event.text);
          if (bytes > maxAnswerBytes) return limit(`the answer is longer than ${maxAnswerBytes} bytes`);
          if (bytes / 4 > tokensLeft) return limit(`the turn needs more than ${turn.run.started?.caps.tokens} tokens`);
          parts.push(event.text);
          batcher.add(event.text);
          if (unstored > maxUnstoredText) await lastStored;
          break;
        case "tool-call":
          toolCalls.push(storable(event.call));
          break;
        case "end":
          batcher.flush();
          return {
            type: "answered",
            text: parts.join(""),
            toolCalls,
            inputTokens: event.inputTokens,
            outputTokens: event.outputTokens,
          };
      }
    }
    return { type: "failed", error: { reason: "MODEL_FAILED", message: "the model broke off" }, retryable: true };
  } catch (error) {
    if (error instanceof ModelCallError) return { type: "failed", error: error.error, retryable: error.retryable };
    if (!turn.signal.aborted) log.error({ err: error, model: model.name }, "a model's adapter failed");
    return { type: "failed", error: { reason: "MODEL_FAILED", message: "the model failed" }, retryable: false };
  } finally {
    batcher.discard();
    reading.abort();
  }
}

/** Arguments that nest too deep are kept as the text that they were, and the call fails. */
function storable(call: ToolCall): ToolCall {
  if (!isDeeperThan(call.arguments, maxJsonDepth)) return call;
  return { ...call, arguments: {}, malformed: JSON.stringify(call.arguments) };
}

function limit(message: string): Answer {
  return { type: "failed", error: { reason: "TURN_LIMIT", message }, retryable: false };
}
