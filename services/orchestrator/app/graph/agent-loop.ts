/**
 * An agent's step of a graph, and a model's, which is one without tools: the
 * loop of a turn, written into the run's journal at the step's place. What it
 * says on the way is not shown; its answer is the step's output.
 */
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError } from "../../../runtime/errors/app-error.ts";
import type { Caps, Entry, EntryBody, PinnedAgent, RunEnd, StepPlace } from "../../domain/entry.ts";
import type { CompiledItemTask } from "../../domain/graph/plan.ts";
import { itemScope, resolveText, scopeOf } from "../../domain/graph-decisions.ts";
import { type BeginLoop, type GraphRun, placeKey } from "../../domain/graph-run.ts";
import type { Json } from "../../domain/json.ts";
import { fold, type Run } from "../../domain/run.ts";
import { capsOf, runTurn } from "../run-turn.ts";
import { Turn, type TurnStep } from "../session-journal.ts";
import type { GraphServices } from "./graph-context.ts";

type LoopTask = Extract<CompiledItemTask, { kind: "model" | "agent" }>;

/** The part of the executor that a loop writes through. */
export interface LoopHost {
  readonly run: GraphRun;
  readonly services: GraphServices;
  readonly epoch: bigint;
  readonly principal: Principal;
  /** The name of the model that is meant by none. */
  readonly defaultModel: string;
  record(bodies: readonly EntryBody[]): Promise<void>;
}

/** What came of a loop. */
export type LoopEnd =
  | { readonly type: "answer"; readonly output: Json }
  | { readonly type: "failed"; readonly end: RunEnd };

/** A loop that runs. */
export interface AgentLoop {
  readonly turn: Turn;
  readonly ended: Promise<LoopEnd>;
}

/** Makes the run of a loop: its input and what it holds on to come from the run that it is a part of. */
export function loopRun(defaultModel: string): BeginLoop {
  return (run, place, atMs) => {
    const node = run.node(place.name);
    const task = node.task.kind === "fan-out" ? node.task.task : node.task;
    if (task.kind !== "model" && task.kind !== "agent") throw new TypeError(`${place.name} asks no model`);
    const agent = agentOf(run, task, defaultModel);
    const failures = run.at(place)?.failures ?? 0;
    const accepted: Entry = {
      atMs,
      body: {
        type: "run.accepted",
        sessionId: "",
        principal: run.principal,
        requestId: run.accepted.requestId,
        traceparent: run.accepted.traceparent,
        agent,
        text: resolveText(task.kind === "model" ? task.prompt : task.message, scopeOf(run, itemScope(run, place))),
        answerSchema: task.answerSchema,
        leavesOut: [],
      },
    };
    const caps: Caps = { ...capsOf(agent), durationMs: node.step.timeoutMs ?? capsOf(agent).durationMs };
    const tools = (run.started?.tools ?? []).filter(
      ({ name }) => agent.tools.includes("*") || agent.tools.includes(name),
    );
    const contextTokens = run.started?.models.get(agent.model) ?? 0;
    const first = fold(run.runId, undefined, accepted);
    const started = fold(run.runId, first, { atMs, body: { type: "run.started", tools, contextTokens, caps } });
    // Another attempt makes other calls: their keys must be others, too.
    return { ...started, prefix: `${placeKey(place)}/${failures > 0 ? `${failures}/` : ""}` };
  };
}

function agentOf(run: GraphRun, task: LoopTask, defaultModel: string): PinnedAgent {
  if (task.kind === "agent") {
    const agent = run.started?.agents.find(({ name }) => name === task.agent);
    if (agent === undefined) throw new AppError("AGENT_NOT_FOUND", `the run has no agent ${task.agent}`);
    return agent;
  }
  return {
    agentId: "",
    revision: 0,
    digest: "",
    name: "",
    model: task.model === "" ? defaultModel : task.model,
    instructions: task.instructions,
    tools: [],
    maxToolRounds: 0,
    maxTokens: 0,
    maxDurationMs: 0,
    encoded: new Uint8Array(),
  };
}

/** Runs the loop of a step from wherever the journal says it is. */
export function runAgentLoop(host: LoopHost, place: StepPlace, atMs: number): AgentLoop {
  const { run, services, principal, epoch } = host;
  const state = run.at(place)?.loop ?? loopRun(host.defaultModel)(run, place, atMs);
  const turn = new Turn(state, 1, 0, principal);
  let end: RunEnd | undefined;
  const journal = {
    sessionId: "",
    epoch,
    now: services.now,
    async store(steps: readonly TurnStep[]): Promise<void> {
      const bodies: EntryBody[] = [];
      for (const { entries } of steps) {
        for (const body of entries ?? []) {
          if (body.type === "run.ended") {
            end = body.end;
            turn.advance({ ...turn.run, ended: { atMs: services.now(), end } });
          } else {
            bodies.push(body.type === "step.started" ? { ...body, plan: { ...body.plan, within: place } } : body);
          }
        }
      }
      if (bodies.length === 0) return;
      const stored = host.record(bodies);
      const loop = run.at(place)?.loop;
      if (loop !== undefined) turn.advance(loop);
      await stored;
    },
  };
  const context = {
    ...services,
    metrics: { ...services.metrics, turnEnded: () => undefined, firstText: () => undefined },
    turn,
    journal,
    history: { before: () => Promise.resolve({ turns: [], older: 0 }) },
  };
  const ended = runTurn(context).then((): LoopEnd => {
    if (end === undefined) throw new AppError("CANCELLED", "the step was stopped");
    return end.state === "succeeded"
      ? { type: "answer", output: outputOf(turn.run, end.answer) }
      : { type: "failed", end };
  });
  return { turn, ended };
}

function outputOf(run: Run, answer: string): Json {
  return run.accepted.answerSchema === undefined ? { text: answer } : (JSON.parse(answer) as Json);
}
