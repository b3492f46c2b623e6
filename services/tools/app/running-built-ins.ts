import type { JsonObject } from "@bufbuild/protobuf";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { BuiltInCall, BuiltInTool } from "../builtin/built-in-tool.ts";
import { callLimits, cancelled, exceedsBytes, type Outcome, type Progress } from "../domain/call.ts";
import { stopTopic, type WakeUps } from "../store/wake-ups.ts";

export interface BuiltInRun {
  readonly orgId: string;
  readonly requestId: string;
  /** By which `cancel` finds it; `undefined` if only the signal ends it. */
  readonly key: string | undefined;
  readonly tool: BuiltInTool;
  readonly input: JsonObject;
  readonly signal: AbortSignal;
}

interface Running {
  readonly stop: () => void;
  readonly ended: Promise<unknown>;
}

/**
 * Runs built-in tools in this process. They have no side effects, so no record
 * is kept: the same key again runs them again.
 */
export class RunningBuiltIns {
  readonly #wakeUps: WakeUps;
  readonly #log: Logger;
  readonly #running = new Map<string, Running>();

  constructor(wakeUps: WakeUps, log: Logger) {
    this.#wakeUps = wakeUps;
    this.#log = log;
  }

  /** Runs a tool with checked arguments. Never rejects: what goes wrong is the outcome. */
  run(run: BuiltInRun): Outcome | Promise<Outcome> {
    const controls = new LazyControls(run);
    try {
      const result = run.tool.run(run.input, controls);
      // Most tools answer at once; they need neither a timer nor a way to be stopped.
      if (!(result instanceof Promise)) return toOutcome({ type: "result", value: result });
      return this.#follow(
        run,
        controls,
        result.then((value) => toOutcome({ type: "result", value })),
      );
    } catch (error) {
      return this.#failed(run, error);
    }
  }

  /** Stops a call that runs here and waits for its end; `undefined` if none has the key. */
  async cancel(orgId: string, key: string, graceMs: number): Promise<Progress | undefined> {
    const running = this.#running.get(`${orgId} ${key}`);
    if (running === undefined) return undefined;
    running.stop();
    const timer = Promise.withResolvers<"late">();
    const timeout = setTimeout(() => timer.resolve("late"), graceMs);
    const winner = await Promise.race([running.ended, timer.promise]);
    clearTimeout(timeout);
    return winner === "late" ? "MAY_STILL_RUN" : "PARTIAL";
  }

  async #follow(run: BuiltInRun, controls: LazyControls, result: Promise<Outcome>): Promise<Outcome> {
    const { orgId, key } = run;
    const name = key === undefined ? undefined : `${orgId} ${key}`;
    const running: Running = { stop: () => controls.stop(), ended: result.catch(() => undefined) };
    if (name !== undefined) this.#running.set(name, running);
    const unsubscribe =
      key === undefined ? () => undefined : this.#wakeUps.subscribe(stopTopic(orgId, key), running.stop);
    try {
      return await result;
    } catch (error) {
      return controls.wasStopped ? cancelled : this.#failed(run, error);
    } finally {
      unsubscribe();
      controls.end();
      if (name !== undefined && this.#running.get(name) === running) this.#running.delete(name);
    }
  }

  #failed(run: BuiltInRun, thrown: unknown): Outcome {
    const { reason, message, cause } = toAppError(thrown);
    if (reason === "INTERNAL") {
      const { requestId, tool } = run;
      this.#log.error({ err: cause ?? thrown, tool: tool.definition.name, requestId }, "a built-in tool failed");
      return { type: "error", reason: "TOOL_FAILED", message: "the tool failed" };
    }
    return { type: "error", reason, message };
  }
}

/** The call as the tool sees it; its signal is made when it is asked for. */
class LazyControls implements BuiltInCall {
  readonly orgId: string;
  readonly requestId: string;
  readonly #run: BuiltInRun;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #signal: AbortSignal | undefined;

  constructor(run: BuiltInRun) {
    this.#run = run;
    this.orgId = run.orgId;
    this.requestId = run.requestId;
  }

  get signal(): AbortSignal {
    if (this.#signal === undefined) {
      const overdue = new AbortController();
      this.#timer = setTimeout(
        () => overdue.abort(new DOMException("the tool takes too long", "TimeoutError")),
        this.#run.tool.definition.timeoutMs,
      );
      this.#signal = AbortSignal.any([this.#run.signal, this.#stopped.signal, overdue.signal]);
    }
    return this.#signal;
  }

  get wasStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  stop(): void {
    this.#stopped.abort();
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

function toOutcome(outcome: Outcome & { readonly type: "result" }): Outcome {
  if (!exceedsBytes(outcome.value, callLimits.maxJsonBytes)) return outcome;
  const { reason, message } = resultTooLarge();
  return { type: "error", reason, message };
}

/** What a result that is too large is refused with. */
export function resultTooLarge(): AppError {
  return new AppError("TOOL_RESULT_INVALID", `the result is larger than ${callLimits.maxJsonBytes} bytes`);
}
