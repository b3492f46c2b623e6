/**
 * The attempts of a run's steps that are under way in this process: calls of
 * tools, and loops of agents and models. What comes of one is handed to the
 * executor as entries; nothing is written here.
 */
import { SpanStatusCode, trace } from "@opentelemetry/api";
import { AppError } from "../../../runtime/errors/app-error.ts";
import type { EntryBody, Payload, PinnedTool, Receipt, StepError, StepPlace } from "../../domain/entry.ts";
import { graphDefaults } from "../../domain/graph/graph.ts";
import type { CompiledItemTask, CompiledToolTask, PlanNode } from "../../domain/graph/plan.ts";
import { resolve } from "../../domain/graph/template.ts";
import { itemScope, retryDelayMs, scopeOf } from "../../domain/graph-decisions.ts";
import { placeKey } from "../../domain/graph-run.ts";
import { isDeeperThan, type Json, type JsonObject, maxJsonDepth } from "../../domain/json.ts";
import { failed, succeeded } from "../../domain/step-entries.ts";
import { untilAvailable } from "../backoff.ts";
import type { ToolCaller } from "../ports.ts";
import { tracedFrom } from "../traced.ts";
import { type AgentLoop, type LoopHost, runAgentLoop } from "./agent-loop.ts";
import { watchAttempt } from "./watch-attempt.ts";

/** What attempts are made for. */
export interface AttemptHost extends LoopHost {
  /** The org's UUID. */
  readonly orgUuid: string;
  /** For whom and what a tool is called now. */
  caller(): ToolCaller;
  /** An attempt takes longer than a moment. */
  onSlow(attempt: Attempt, number: number): void;
  /** An attempt is over; without entries it was cut off. */
  onOver(attempt: Attempt, bodies: readonly EntryBody[]): Promise<void>;
  /** An attempt broke off by what is no failure of its step. */
  onBroken(attempt: Attempt, error: unknown): Promise<void>;
}

/** An attempt that is under way. */
export interface Attempt {
  readonly place: StepPlace;
  readonly stepId: string;
  /** Whether it was cut off from outside, and not for its time. */
  readonly stopped: boolean;
}

/** What a step does in one attempt. */
export type AttemptTask = Exclude<CompiledItemTask, { kind: "child-run" }>;

/** How the context of a trace ends that nobody records: no span is made for it, which is most of what one costs. */
const unsampled = "-00";

class Flight implements Attempt {
  readonly place: StepPlace;
  readonly stepId: string;
  controller = new AbortController();
  loop: AgentLoop | undefined;
  over: Promise<void> = Promise.resolve();

  constructor(place: StepPlace, stepId: string) {
    this.place = place;
    this.stepId = stepId;
  }

  get stopped(): boolean {
    return this.controller.signal.aborted;
  }
}

/** Makes attempts, one of a step at a time. */
export class StepAttempts {
  readonly #host: AttemptHost;
  readonly #tools: ReadonlyMap<string, PinnedTool>;
  readonly #flights = new Map<string, Flight>();

  constructor(host: AttemptHost) {
    this.#host = host;
    this.#tools = new Map((host.run.started?.tools ?? []).map((tool) => [tool.name, tool]));
  }

  /** How many are under way. */
  get size(): number {
    return this.#flights.size;
  }

  /** Whether one of the step is under way. */
  has(stepId: string): boolean {
    return this.#flights.has(stepId);
  }

  /** Whether a tool changes nothing, wherever, as far as it says. */
  isPure(tool: string): boolean {
    return this.#tools.get(tool)?.pure === true;
  }

  /** Those under way. */
  all(): readonly Attempt[] {
    return [...this.#flights.values()];
  }

  /** Makes an attempt of a step, unless one is under way. */
  begin(place: StepPlace, node: PlanNode, task: AttemptTask): void {
    const host = this.#host;
    const stepId = host.run.stepIdAt(place);
    if (this.#flights.has(stepId)) return;
    const flight = new Flight(place, stepId);
    this.#flights.set(stepId, flight);
    flight.over = this.#inSpan(flight, task.kind, () =>
      task.kind === "tool" ? this.#callTool(flight, node, task) : this.#runLoop(flight),
    ).then(
      (bodies) => {
        this.#flights.delete(stepId);
        return host.onOver(flight, bodies);
      },
      (error: unknown) => {
        this.#flights.delete(stepId);
        return host.onBroken(flight, error);
      },
    );
  }

  /** Cuts off all but compensations: gives those, and when they are over. */
  stop(): { readonly stopped: readonly Attempt[]; readonly over: Promise<unknown> } {
    const stopped = [...this.#flights.values()].filter(({ place }) => !place.compensation);
    for (const { controller } of stopped) controller.abort(new AppError("CANCELLED", "the run was stopped"));
    return { stopped, over: Promise.allSettled(stopped.map(({ over }) => over)) };
  }

  /** Cuts everything off, which goes on in another process; resolves when it is over. */
  async abandon(): Promise<void> {
    const flights = [...this.#flights.values()];
    for (const { loop, controller } of flights) {
      loop?.turn.stop("abandon");
      controller.abort(new AppError("CANCELLED", "another process goes on"));
    }
    await Promise.allSettled(flights.map(({ over }) => over));
  }

  /** The entry of an attempt that failed, with the time of the next one if there is to be one. */
  failure({ place, stepId }: Pick<Attempt, "place" | "stepId">, error: StepError, receipt?: Receipt): EntryBody {
    const { run, services } = this.#host;
    const failures = (run.at(place)?.failures ?? 0) + 1;
    const policy = place.compensation ? graphDefaults.retry : run.node(place.name).step.retry;
    const delayMs = retryDelayMs(policy, error, failures);
    const retryAtMs = delayMs === undefined ? undefined : services.now() + delayMs;
    return { ...failed(place, stepId, failures, error), retryAtMs, receipt };
  }

  /** Does an attempt within a span, a part of the trace that the request began which asked for the run. */
  #inSpan(
    { place, stepId }: Flight,
    kind: AttemptTask["kind"],
    work: () => Promise<readonly EntryBody[]>,
  ): Promise<readonly EntryBody[]> {
    const { run, services } = this.#host;
    const { traceparent } = run.accepted;
    if (traceparent.endsWith(unsampled)) return work();
    const attributes = {
      "cadre.run_id": run.runId,
      "cadre.step_id": stepId,
      "cadre.step": placeKey(place),
      "cadre.attempt": (run.at(place)?.failures ?? 0) + 1,
    };
    return tracedFrom(services.tracer, traceparent, `cadre.step.${kind}`, attributes, async () => {
      const bodies = await work();
      const failure = bodies.find((body) => body.type === "graph.step.failed");
      if (failure !== undefined) {
        trace.getActiveSpan()?.setStatus({ code: SpanStatusCode.ERROR, message: failure.error.reason });
      }
      return bodies;
    });
  }

  async #callTool(flight: Flight, node: PlanNode, task: CompiledToolTask): Promise<readonly EntryBody[]> {
    const { run, services } = this.#host;
    const { place, stepId } = flight;
    const attempt = (run.at(place)?.failures ?? 0) + 1;
    const tool = this.#tools.get(task.tool);
    if (tool === undefined) {
      const message = `the run holds on to no tool ${task.tool}`;
      return [failed(place, stepId, attempt, { reason: "TOOL_NOT_FOUND", message })];
    }
    const args = resolve(task.arguments, scopeOf(run, itemScope(run, place))) as JsonObject;
    const { signal } = flight.controller;
    const caller = this.#host.caller();
    const principal = await untilAvailable(() => services.principals.assertMayAct(caller.principal, signal), signal);
    // A compensation is bounded by itself: what it undoes may have had any time.
    const timeoutMs = place.compensation ? graphDefaults.timeoutMs : node.step.timeoutMs;
    const watch = watchAttempt(flight.controller, timeoutMs ?? graphDefaults.timeoutMs, () =>
      this.#host.onSlow(flight, attempt),
    );
    try {
      const outcome = await services.tools.call(
        { ...caller, principal },
        {
          tool,
          stepId,
          attempt,
          arguments: args,
          afterFailures: attempt - 1,
          timeoutMs,
          heartbeatTimeoutMs: node.step.heartbeatTimeoutMs,
        },
        signal,
      );
      if (watch.timedOut) return [await this.#timedOut(flight)];
      if (outcome.type === "error") {
        services.metrics.stepEnded("tool", "failed");
        return [this.failure(flight, outcome.error)];
      }
      services.metrics.stepEnded("tool", "succeeded");
      return [succeeded(place, stepId, attempt, await this.#keep(outcome.value))];
    } catch (error) {
      if (watch.timedOut) return [await this.#timedOut(flight)];
      throw error;
    } finally {
      watch.end();
    }
  }

  async #runLoop(flight: Flight): Promise<readonly EntryBody[]> {
    const { place, stepId, controller } = flight;
    const attempt = (this.#host.run.at(place)?.failures ?? 0) + 1;
    const loop = runAgentLoop(this.#host, place, this.#host.services.now());
    flight.loop = loop;
    const onAbort = (): void => loop.turn.stop("abandon");
    controller.signal.addEventListener("abort", onAbort, { once: true });
    try {
      const end = await loop.ended;
      if (end.type === "answer") return [succeeded(place, stepId, attempt, await this.#keep(end.output))];
      const error: StepError =
        end.end.state === "failed" ? end.end.error : { reason: "CANCELLED", message: "the step was cancelled" };
      return [this.failure(flight, error)];
    } finally {
      controller.signal.removeEventListener("abort", onAbort);
    }
  }

  async #timedOut(flight: Flight): Promise<EntryBody> {
    const receipt = await this.#host.services.tools.cancel(this.#host.caller(), flight.stepId);
    // From here on it is an attempt that failed, not one that was stopped.
    flight.controller = new AbortController();
    return this.failure(flight, { reason: "STEP_TIMEOUT", message: "the attempt took too long" }, receipt);
  }

  async #keep(value: Json): Promise<Payload> {
    if (isDeeperThan(value, maxJsonDepth)) {
      throw new AppError("TOOL_RESULT_INVALID", `the result has more than ${maxJsonDepth} levels`);
    }
    return await this.#host.services.payloads.keep(this.#host.orgUuid, value);
  }
}
