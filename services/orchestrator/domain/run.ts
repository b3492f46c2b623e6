/**
 * The state of a run: a fold over its journal. Invariants:
 *
 * 1. Nothing follows `run.ended`.
 * 2. A result belongs to the attempt that was started last; a step with a
 *    result has no other.
 * 3. A tool step belongs to a call of its round's model result.
 * 4. A round follows one whose calls all have outcomes, or whose answer was rejected.
 * 5. A run that succeeded ends with the answer of its last round.
 *
 * A journal that breaks them is damaged, and is refused with DATA_LOSS.
 */
import { AppError } from "../../runtime/errors/app-error.ts";
import type {
  CancelCause,
  Caps,
  Entry,
  ModelResult,
  PinnedTool,
  RunAccepted,
  RunEnd,
  StepError,
  ToolOutcome,
} from "./entry.ts";

interface Attempted {
  readonly stepId: string;
  /** The attempt that was started last, from 1. */
  readonly attempt: number;
  /** How many attempts failed, as opposed to those that a crash cut short. */
  readonly failures: number;
  readonly phase: "running" | "failed" | "succeeded";
  /** Why the last attempt failed. */
  readonly error: StepError | undefined;
  /** Whether another attempt may follow the failed one. */
  readonly retryable: boolean;
}

/** A call of the model and what came of it. */
export interface Round extends Attempted {
  /** From 1. */
  readonly round: number;
  readonly turnsLeftOut: number;
  readonly result: ModelResult | undefined;
  /** By the position of the call; a call that was not started is undefined. */
  readonly tools: readonly (ToolStep | undefined)[];
  /** What is wrong with the answer, if it was rejected. */
  readonly rejected: string | undefined;
}

/** A call of a tool. */
export interface ToolStep extends Attempted {
  readonly index: number;
  readonly startedAtMs: number;
  readonly outcome: ToolOutcome | undefined;
}

/** What a run used. */
export interface RunUsage {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly modelCalls: number;
  readonly toolCalls: number;
}

/** A run. */
export interface Run {
  readonly runId: string;
  /** What the places of its steps begin with: the agent's step in a graph; empty in a turn. */
  readonly prefix: string;
  /** How many entries it has. */
  readonly head: number;
  readonly accepted: RunAccepted;
  readonly acceptedAtMs: number;
  readonly started:
    | {
        readonly atMs: number;
        readonly tools: readonly PinnedTool[];
        readonly contextTokens: number;
        readonly caps: Caps;
      }
    | undefined;
  readonly rounds: readonly Round[];
  readonly cancel: CancelCause | undefined;
  readonly ended: { readonly atMs: number; readonly end: RunEnd } | undefined;
  readonly usage: RunUsage;
}

/** The state after one more entry. `undefined` is the run before its first entry. */
export function fold(runId: string, run: Run | undefined, entry: Entry): Run {
  const { body, atMs } = entry;
  if (run === undefined) {
    if (body.type !== "run.accepted") throw damaged("does not begin with its acceptance");
    return {
      runId,
      prefix: "",
      head: 1,
      accepted: body,
      acceptedAtMs: atMs,
      started: undefined,
      rounds: [],
      cancel: undefined,
      ended: undefined,
      usage: { inputTokens: 0, outputTokens: 0, modelCalls: 0, toolCalls: 0 },
    };
  }
  if (run.ended !== undefined) throw damaged("goes on after its end"); // 1
  const next = { ...run, head: run.head + 1 };
  switch (body.type) {
    case "run.accepted":
      throw damaged("is accepted twice");
    case "run.started":
      if (run.started !== undefined) throw damaged("starts twice");
      return {
        ...next,
        started: { atMs, tools: body.tools, contextTokens: body.contextTokens, caps: body.caps },
      };
    case "step.started":
      if (run.started === undefined) throw damaged("has a step before its start");
      return body.plan.kind === "model"
        ? startModel(next, body.stepId, body.attempt, body.plan.round, body.plan.turnsLeftOut)
        : startTool(next, body.stepId, body.attempt, body.plan.round, body.plan.index, atMs);
    case "step.succeeded": {
      const { result } = body;
      if (result.kind === "model") {
        const { text, toolCalls, inputTokens, outputTokens } = result;
        return {
          ...withRound(next, body.stepId, body.attempt, (round) => ({
            ...round,
            phase: "succeeded",
            result: { text, toolCalls, inputTokens, outputTokens },
          })),
          usage: {
            ...run.usage,
            inputTokens: run.usage.inputTokens + inputTokens,
            outputTokens: run.usage.outputTokens + outputTokens,
            modelCalls: run.usage.modelCalls + 1,
          },
        };
      }
      return {
        ...withTool(next, body.stepId, body.attempt, (tool) => ({
          ...tool,
          phase: "succeeded",
          outcome: result.outcome,
        })),
        usage: { ...run.usage, toolCalls: run.usage.toolCalls + 1 },
      };
    }
    case "step.failed": {
      const change = <T extends Attempted>(step: T): T => ({
        ...step,
        phase: "failed",
        failures: step.failures + 1,
        error: body.error,
        retryable: body.retryable,
      });
      return isModelStep(run, body.stepId)
        ? withRound(next, body.stepId, body.attempt, change)
        : withTool(next, body.stepId, body.attempt, change);
    }
    case "answer.rejected": {
      const last = run.rounds.at(-1);
      if (last?.stepId !== body.stepId || last.phase !== "succeeded") {
        throw damaged("rejects an answer that was not given");
      }
      return { ...next, rounds: [...run.rounds.slice(0, -1), { ...last, rejected: body.problems }] };
    }
    case "cancel.requested":
      return { ...next, cancel: run.cancel ?? body.cause };
    case "run.ended":
      if (body.end.state === "succeeded" && answerOf(run) !== body.end.answer) {
        throw damaged("ends with an answer that no model gave"); // 5
      }
      return { ...next, ended: { atMs, end: body.end } };
    default:
      throw damaged(`has an entry ${body.type} of a graph`);
  }
}

/** The state of a whole journal. Throws DATA_LOSS if it is empty or damaged. */
export function foldAll(runId: string, entries: Iterable<Entry>): Run {
  let run: Run | undefined;
  for (const entry of entries) run = fold(runId, run, entry);
  if (run === undefined) throw damaged("is empty");
  return run;
}

/** The failure of a journal that breaks an invariant. */
export function damaged(how: string): AppError {
  return new AppError("DATA_LOSS", `the journal of the run ${how}`);
}

function startModel(run: Run, stepId: string, attempt: number, round: number, turnsLeftOut: number): Run {
  const last = run.rounds.at(-1);
  if (last?.stepId === stepId) {
    if (last.phase === "succeeded" || attempt !== last.attempt + 1) throw damaged("repeats a finished step"); // 2
    return { ...run, rounds: [...run.rounds.slice(0, -1), { ...last, attempt, turnsLeftOut, phase: "running" }] };
  }
  if (round !== run.rounds.length + 1 || attempt !== 1) throw damaged("skips a round");
  if (last !== undefined && !isComplete(last)) throw damaged("goes on before a round is complete"); // 4
  const started: Round = {
    stepId,
    attempt,
    round,
    turnsLeftOut,
    failures: 0,
    phase: "running",
    error: undefined,
    retryable: false,
    result: undefined,
    tools: [],
    rejected: undefined,
  };
  return { ...run, rounds: [...run.rounds, started] };
}

function answerOf(run: Run): string | undefined {
  const last = run.rounds.at(-1);
  return last?.result?.toolCalls.length === 0 && last.rejected === undefined ? last.result.text : undefined;
}

function isComplete(round: Round): boolean {
  if (round.result === undefined) return false;
  const { toolCalls } = round.result;
  if (toolCalls.length === 0) return round.rejected !== undefined;
  return toolCalls.every((_, index) => round.tools[index]?.outcome !== undefined);
}

function startTool(run: Run, stepId: string, attempt: number, round: number, index: number, atMs: number): Run {
  const last = run.rounds.at(-1);
  if (last?.round !== round || last.result?.toolCalls[index] === undefined) {
    throw damaged("calls a tool that no model asked for"); // 3
  }
  const before = last.tools[index];
  if (attempt !== (before?.attempt ?? 0) + 1 || before?.phase === "succeeded") {
    throw damaged("repeats a finished step"); // 2
  }
  const tools = [...last.tools];
  tools[index] = {
    stepId,
    index,
    attempt,
    failures: before?.failures ?? 0,
    phase: "running",
    error: undefined,
    retryable: false,
    startedAtMs: before?.startedAtMs ?? atMs,
    outcome: undefined,
  };
  return { ...run, rounds: [...run.rounds.slice(0, -1), { ...last, tools }] };
}

function isModelStep(run: Run, stepId: string): boolean {
  return run.rounds.at(-1)?.stepId === stepId;
}

function withRound(run: Run, stepId: string, attempt: number, change: (round: Round) => Round): Run {
  const last = run.rounds.at(-1);
  if (last === undefined || last.stepId !== stepId || last.attempt !== attempt || last.phase !== "running") {
    throw damaged("has a result that no attempt asked for"); // 2
  }
  return { ...run, rounds: [...run.rounds.slice(0, -1), change(last)] };
}

function withTool(run: Run, stepId: string, attempt: number, change: (tool: ToolStep) => ToolStep): Run {
  const last = run.rounds.at(-1);
  const tool = last?.tools.find((candidate) => candidate?.stepId === stepId);
  if (last === undefined || tool === undefined || tool.attempt !== attempt || tool.phase !== "running") {
    throw damaged("has a result that no attempt asked for"); // 2
  }
  const tools = [...last.tools];
  tools[tool.index] = change(tool);
  return { ...run, rounds: [...run.rounds.slice(0, -1), { ...last, tools }] };
}
