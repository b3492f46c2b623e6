import { create } from "@bufbuild/protobuf";
import {
  ToolEndedSchema,
  TurnEndedSchema,
  TurnStartedSchema,
  TurnState,
} from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { compileJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import type { Caps, PinnedAgent, RunEnd, StepError } from "../domain/entry.ts";
import type { JsonObject } from "../domain/json.ts";
import { type Action, callsInFlight, nextAction } from "../domain/next-action.ts";
import type { Run } from "../domain/run.ts";
import { isLost } from "../store/committer.ts";
import { untilAvailable } from "./backoff.ts";
import { runModelStep } from "./run-model-step.ts";
import { runToolRound } from "./run-tool-round.ts";
import type { Turn, TurnStep } from "./session-journal.ts";
import { follow, type TurnContext, toolCaller } from "./turn-context.ts";
import { durationOf, toTurnError, turnUsage } from "./turn-view.ts";

/** A turn that cannot even be ended is left to the next owner of its session. */
const maxFailures = 3;

const defaultCaps: Caps = { toolRounds: 16, tokens: 200_000, durationMs: 600_000 };

/** What ends a turn of an agent early. */
export function capsOf(agent: PinnedAgent): Caps {
  return {
    toolRounds: agent.maxToolRounds || defaultCaps.toolRounds,
    tokens: agent.maxTokens || defaultCaps.tokens,
    durationMs: agent.maxDurationMs || defaultCaps.durationMs,
  };
}

/**
 * Runs a turn from wherever its journal says it is to its end: decide, do,
 * store, and again. Returns when the end is stored, or when the turn was
 * abandoned because another process goes on with it.
 *
 * @throws AppError FENCED and whatever else keeps the turn from being stored
 */
export async function runTurn(context: TurnContext): Promise<void> {
  const { turn, journal, log } = context;
  const caps = turn.run.started?.caps ?? capsOf(turn.run.accepted.agent);
  const startedAtMs = turn.run.started?.atMs ?? journal.now();
  const timer = setTimeout(
    () => turn.stop("limit"),
    Math.min(Math.max(0, startedAtMs + caps.durationMs - journal.now()), 2 ** 31 - 1),
  );
  try {
    for (let failures = 0; turn.run.ended === undefined && !turn.abandoned; ) {
      const action = stopAction(turn) ?? nextAction(turn.run);
      try {
        await perform(context, action, caps);
      } catch (error) {
        // Cut off from outside: decide anew, on what is known now.
        if (turn.signal.aborted && action.type !== "stop" && action.type !== "end") continue;
        const failure = failureOf(error);
        failures += 1;
        if (failure === undefined || failures > maxFailures) throw error;
        if (failure.reason === "INTERNAL") log.error({ err: error, runId: turn.run.runId }, "a turn failed");
        await end(context, { state: "failed", error: failure, toolsMayStillRun: [] });
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** When time is up, the turn is stopped like a cancelled one. */
function stopAction(turn: Turn): Action | undefined {
  if (!turn.limitReached || turn.run.cancel !== undefined) return undefined;
  return { type: "stop", inFlight: callsInFlight(turn.run) };
}

async function perform(context: TurnContext, action: Action, caps: Caps): Promise<void> {
  switch (action.type) {
    case "start":
      return await start(context, caps);
    case "model":
      await mayAct(context);
      return await runModelStep(context, action);
    case "tools":
      await mayAct(context);
      return await runToolRound(context, toolCaller(context), action);
    case "check-answer":
      return await checkAnswer(context, action);
    case "stop":
      return await stop(context, action.inFlight);
    case "end":
      return await end(context, action.end);
    case "nothing":
      return;
  }
}

/** Fixes what the run depends on. */
async function start(context: TurnContext, caps: Caps): Promise<void> {
  const { turn, journal, models, tools } = context;
  await mayAct(context);
  const { agent, text } = turn.run.accepted;
  const model = models.find(agent.model);
  if (model === undefined) throw new AppError("MODEL_NOT_FOUND", `no model ${agent.model} is configured`);
  const pinned =
    agent.tools.length === 0
      ? []
      : await untilAvailable(() => tools.resolve(toolCaller(context), agent.tools, turn.signal), turn.signal);
  turn.signal.throwIfAborted();
  // Not waited for: the model is asked meanwhile, and its first text is stored after this.
  void follow(
    context,
    journal.store([
      {
        turn,
        entries: [{ type: "run.started", tools: pinned, contextTokens: model.contextTokens, caps }],
        events: [
          {
            case: "turnStarted",
            value: create(TurnStartedSchema, { text, model: agent.model, agentRevision: agent.revision }),
          },
        ],
      },
    ]),
  );
}

async function mayAct({ turn, principals }: TurnContext): Promise<void> {
  await untilAvailable(() => principals.assertMayAct(turn.principal, turn.signal), turn.signal);
}

async function checkAnswer(context: TurnContext, action: Extract<Action, { type: "check-answer" }>): Promise<void> {
  const problems = problemsOf(action.schema, action.answer);
  if (problems === undefined) return await end(context, { state: "succeeded", answer: action.answer });
  const { turn, journal } = context;
  await journal.store([{ turn, entries: [{ type: "answer.rejected", stepId: action.stepId, problems }] }]);
}

/** What is wrong with an answer; undefined if it holds to the schema. */
function problemsOf(schema: JsonObject, answer: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    return "it is no JSON";
  }
  const violations = compileJsonSchema(schema as never).validate(value);
  if (violations.length === 0) return undefined;
  return violations.map(({ field, message }) => `${field === "" ? "the value" : field}: ${message}`).join("; ");
}

/** Tells the tools in flight, then ends the turn as cancelled, or for its limit. */
async function stop(context: TurnContext, inFlight: Extract<Action, { type: "stop" }>["inFlight"]): Promise<void> {
  const { turn, tools } = context;
  const caller = toolCaller(context);
  const running = await Promise.all(
    inFlight.map(async ({ stepId, call }) =>
      (await tools.cancel(caller, stepId)) === "may-still-run" ? [call.tool] : [],
    ),
  );
  const toolsMayStillRun = [...new Set(running.flat())].sort();
  if (turn.abandoned) return;
  const cancelled = inFlight.map(({ stepId, attempt, call }) => ({
    case: "toolEnded" as const,
    value: create(ToolEndedSchema, {
      stepId,
      attempt,
      tool: call.tool,
      outcome: { case: "error", value: toTurnError({ reason: "CANCELLED", message: "the call was cancelled" }) },
    }),
  }));
  const caps = turn.run.started?.caps ?? capsOf(turn.run.accepted.agent);
  await end(
    context,
    turn.run.cancel === undefined
      ? {
          state: "failed",
          error: { reason: "TURN_LIMIT", message: `the turn took longer than ${caps.durationMs / 1_000} seconds` },
          toolsMayStillRun,
        }
      : { state: "cancelled", toolsMayStillRun },
    cancelled,
  );
}

async function end(
  context: TurnContext,
  wanted: RunEnd,
  events: readonly NonNullable<TurnStep["events"]>[number][] = [],
): Promise<void> {
  const { turn, journal, metrics } = context;
  // A cancellation that was stored while this end was prepared comes first.
  if (turn.run.cancel !== undefined && wanted.state !== "cancelled") return;
  await journal.store([
    {
      turn,
      entries: [{ type: "run.ended", end: wanted, started: turn.run.started !== undefined }],
      events: [...events, turnEnded(turn.run, wanted, journal.now())],
    },
  ]);
  metrics.turnEnded(wanted.state, durationOf(turn.run));
}

/** The event of a run's end. */
export function turnEnded(run: Run, end: RunEnd, atMs: number) {
  const ended: Run = { ...run, ended: { atMs, end } };
  return {
    case: "turnEnded" as const,
    value: create(TurnEndedSchema, {
      state: { succeeded: TurnState.SUCCEEDED, failed: TurnState.FAILED, cancelled: TurnState.CANCELLED }[end.state],
      answer: end.state === "succeeded" ? end.answer : "",
      ...(end.state === "failed" ? { error: toTurnError(end.error) } : {}),
      usage: turnUsage(ended),
      toolsMayStillRun: end.state === "succeeded" ? [] : [...end.toolsMayStillRun],
    }),
  };
}

/** How a turn ends that something kept from going on; undefined if it has to be abandoned. */
function failureOf(error: unknown): StepError | undefined {
  if (!(error instanceof AppError)) return { reason: "INTERNAL", message: "internal error" };
  if (isLost(error)) return undefined;
  switch (error.reason) {
    case "EPOCH_STALE":
    case "IDEMPOTENCY_IN_PROGRESS":
      return undefined;
    case "INTERNAL":
      return { reason: "INTERNAL", message: "internal error" };
    default:
      return { reason: error.reason, message: error.message };
  }
}
