import type { JsonObject } from "@bufbuild/protobuf";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { within } from "../../runtime/wait/within.ts";
import type { BuiltInCall, BuiltInTool } from "../builtin/built-in-tool.ts";
import { callLimits, cancelled, exceedsBytes, type Outcome, overdue, type Progress } from "../domain/call.ts";
import { stopTopic, type WakeUps } from "../store/wake-ups.ts";

export interface BuiltInRun {
  readonly orgId: string;
  readonly requestId: string;
  /** By which `cancel` finds it; `undefined` if only the signal ends it. */
  readonly key: string | undefined;
  readonly tool: BuiltInTool;
  readonly input: JsonObject;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Ended calls that are remembered. */
const maxEnded = 10_000;

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
  /** How far calls had got that ended here, by key; for those who cancel too late. */
  readonly #ended = new BoundedMap<string, Progress>(maxEnded);

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
      if (!(result instanceof Promise)) {
        this.#remember(run, "DONE");
        return toOutcome({ type: "result", value: result });
      }
      return this.#follow(
        run,
        controls,
        result.then((value) => toOutcome({ type: "result", value })),
      );
    } catch (error) {
      this.#remember(run, "DONE");
      return this.#failed(run, error);
    }
  }

  /** Stops a call that runs here and waits for its end; `undefined` if none has the key, or had it lately. */
  async cancel(orgId: string, key: string, graceMs: number): Promise<Progress | undefined> {
    const name = `${orgId} ${key}`;
    const running = this.#running.get(name);
    if (running === undefined) return this.#ended.get(name);
    running.stop();
    return within<Progress, Progress>(
      graceMs,
      running.ended.then(() => "PARTIAL"),
      () => "MAY_STILL_RUN",
    );
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
      switch (controls.endedBy) {
        case "cancellation":
          return { ...cancelled, progress: "PARTIAL" };
        case "timeout":
          return { ...overdue, progress: "PARTIAL" };
        default:
          return this.#failed(run, error);
      }
    } finally {
      this.#remember(run, controls.endedBy === undefined ? "DONE" : "PARTIAL");
      unsubscribe();
      controls.end();
      if (name !== undefined && this.#running.get(name) === running) this.#running.delete(name);
    }
  }

  #remember({ orgId, key }: BuiltInRun, progress: Progress): void {
    if (key === undefined) return;
    this.#ended.set(`${orgId} ${key}`, progress);
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
  #controller: AbortController | undefined;
  #timer: NodeJS.Timeout | undefined;
  #signal: AbortSignal | undefined;
  /** Who ended the call from outside, and was first. */
  #endedBy: "cancellation" | "timeout" | undefined;

  constructor(run: BuiltInRun) {
    this.#run = run;
    this.orgId = run.orgId;
    this.requestId = run.requestId;
  }

  get signal(): AbortSignal {
    if (this.#signal === undefined) {
      const late = new DOMException("the tool takes too long", "TimeoutError");
      this.#controller = new AbortController();
      this.#timer = setTimeout(() => this.#abort("timeout", late), this.#run.timeoutMs);
      this.#signal = AbortSignal.any([this.#run.signal, this.#controller.signal]);
      if (this.#endedBy !== undefined) this.#controller.abort();
    }
    return this.#signal;
  }

  get endedBy(): "cancellation" | "timeout" | undefined {
    return this.#endedBy;
  }

  stop(): void {
    this.#abort("cancellation");
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #abort(by: "cancellation" | "timeout", reason?: unknown): void {
    this.#endedBy ??= by;
    this.#controller?.abort(reason);
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
