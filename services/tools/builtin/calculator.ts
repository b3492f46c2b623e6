import { Worker } from "node:worker_threads";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { BuiltInTool } from "./built-in-tool.ts";
import type { CalculatorRequest, CalculatorResponse } from "./calculator-worker.ts";

/** The calculator, and the thread it computes in. */
export interface Calculator extends BuiltInTool {
  /** Ends the thread; calls that run fail with UNAVAILABLE. */
  close(): Promise<void>;
}

/** Expressions computed or waiting; the next one is refused. */
const maxPending = 256;

interface Pending {
  readonly resolve: (result: string) => void;
  readonly reject: (error: AppError) => void;
}

/** Evaluates arithmetic. The thread starts with the first call. */
export function createCalculator(): Calculator {
  let thread: Worker | undefined;
  let isLoaded = false;
  let closed = false;
  let lastId = 0;
  const pending = new Map<number, Pending>();

  function start(): Worker {
    const started = new Worker(new URL("./calculator-worker.ts", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 192 },
      // The thread needs nothing of the process's environment.
      env: {},
      execArgv: [],
    });
    started.unref();
    isLoaded = false;
    started.on("message", (response: CalculatorResponse) => {
      if (response.type === "ready") {
        if (started === thread) isLoaded = true;
        return;
      }
      const waiting = pending.get(response.id);
      pending.delete(response.id);
      if (response.type === "result") waiting?.resolve(response.result);
      else waiting?.reject(new AppError("TOOL_FAILED", `the expression has no value: ${response.message}`));
    });
    started.on("error", (cause) => stop(started, new AppError("TOOL_FAILED", "the calculator failed", { cause })));
    return started;
  }

  /** Whoever waits is told; the next call starts another thread. */
  function stop(which: Worker | undefined, error: AppError): void {
    if (which === undefined || which !== thread) return;
    thread = undefined;
    const waiting = [...pending.values()];
    pending.clear();
    for (const { reject } of waiting) reject(error);
    void which.terminate();
  }

  return {
    definition: {
      name: "calculator",
      description:
        "Evaluates an arithmetic expression exactly, in decimal numbers: + - * / % ^ ! and parentheses, the functions sqrt cbrt abs sign floor ceil round min max exp log log2 log10 sin cos tan asin acos atan atan2, and the constants pi, e, tau and phi. For example: (1 + 0.07)^10 * 2500",
      inputSchema: {
        type: "object",
        properties: {
          expression: { type: "string", minLength: 1, maxLength: 1000, description: "The expression." },
        },
        required: ["expression"],
        additionalProperties: false,
      },
      outputSchema: {
        type: "object",
        properties: { result: { type: "string", description: "The value in decimal digits." } },
        required: ["result"],
        additionalProperties: false,
      },
      sideEffects: "NONE",
      timeoutMs: 10_000,
    },
    async run(input, { signal }) {
      const { expression } = input;
      if (typeof expression !== "string") throw new TypeError("the arguments were not checked");
      if (closed) throw new AppError("SHUTTING_DOWN", "the calculator is closed");
      if (pending.size >= maxPending) throw new AppError("OVERLOADED", "too many expressions wait to be computed");
      signal.throwIfAborted();
      thread ??= start();
      const used = thread;
      lastId += 1;
      const id = lastId;
      const onAbort = (): void => {
        const waiting = pending.get(id);
        if (waiting === undefined) return;
        if (!isTimeout(signal.reason)) {
          waiting.reject(new AppError("CANCELLED", "the call was cancelled"));
          return;
        }
        const late = new AppError("TOOL_FAILED", "the expression takes too long");
        // Expressions are bounded, so a timeout means that the thread is stuck: with this one, or one before it.
        // One that still loads is not: on a busy machine that takes its time, and a new one would begin again.
        if (used === thread && isLoaded) stop(used, late);
        else waiting.reject(late);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        const result = await new Promise<string>((resolve, reject) => {
          pending.set(id, { resolve, reject });
          used.postMessage({ id, expression } satisfies CalculatorRequest);
        });
        return { result };
      } finally {
        signal.removeEventListener("abort", onAbort);
        pending.delete(id);
      }
    },
    async close() {
      closed = true;
      const last = thread;
      stop(last, new AppError("SHUTTING_DOWN", "the calculator is closed"));
      await last?.terminate();
    },
  };
}

function isTimeout(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === "TimeoutError";
}
