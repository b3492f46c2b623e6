import { createHash } from "node:crypto";
import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import {
  type ExecuteToolRequest,
  ExecutionProgress,
  type PinnedTool,
  PinnedToolSchema,
  SideEffects,
  ToolExecutionService,
} from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { fromUuid } from "../../services/runtime/ids/id.ts";

/** What a handler of a fake tool is given. */
export interface FakeCall {
  /** Tests give plain ones. */
  readonly arguments: Readonly<Record<string, string | number>>;
  readonly idempotencyKey: string;
  /** Aborts when the call is cancelled. */
  readonly signal: AbortSignal;
  print(text: string): void;
}

/** Handles a call; what it throws is the tool's error. */
export type FakeHandler = (call: FakeCall) => Promise<JsonValue> | JsonValue;

interface Execution {
  readonly outcome: Promise<{ case: "result"; value: JsonValue } | { case: "error"; value: string }>;
  readonly output: string[];
  readonly abort: AbortController;
  /** How many executions of the key failed before this one. */
  readonly failures: number;
  epoch: bigint;
  ended: boolean;
  failed: boolean;
  wake: () => void;
}

/**
 * A ToolExecutionService with handlers given by a test. It keeps what the
 * contract promises: one execution a key, joined by whoever asks again; lower
 * epochs refused; cancellation by CancelExecution only.
 */
export class FakeTools {
  readonly service = ToolExecutionService;
  /** Every request to execute, in order, joined ones too. */
  readonly requests: ExecuteToolRequest[] = [];
  /** Every handler that was begun, by its key. */
  readonly begun: string[] = [];
  /** Keys that were cancelled. */
  readonly cancelled: string[] = [];
  readonly #handlers = new Map<string, FakeHandler>();
  readonly #tools = new Map<string, PinnedTool>();
  readonly #executions = new Map<string, Execution>();

  /** Adds a tool that says that it changes nothing. */
  addPure(name: string, handler: FakeHandler): this {
    return this.add(name, handler, ["text"], SideEffects.NONE);
  }

  /** Adds a tool whose arguments are any object. */
  add(
    name: string,
    handler: FakeHandler,
    required: readonly string[] = ["text"],
    sideEffects: SideEffects = SideEffects.UNSPECIFIED,
  ): this {
    this.#handlers.set(name, handler);
    const properties = Object.fromEntries(required.map((field) => [field, {}]));
    this.#tools.set(
      name,
      create(PinnedToolSchema, {
        // The same in every process, as the ids of a registry are.
        toolId: fromUuid("tool", createHash("sha256").update(name).digest("hex").slice(0, 32)),
        digest: `sha256:${"0".repeat(64)}`,
        definition: {
          name,
          description: `The tool ${name}.`,
          inputSchema: { type: "object", properties, required: [...required] },
          sideEffects,
        },
      }),
    );
    return this;
  }

  /** Changes a tool's definition, as registering it anew does. */
  redefine(name: string, description: string): void {
    const tool = this.#tools.get(name);
    if (tool?.definition === undefined) throw new Error(`no tool ${name}`);
    const digest = `sha256:${createHash("sha256").update(description).digest("hex")}`;
    this.#tools.set(
      name,
      create(PinnedToolSchema, { ...tool, digest, definition: { ...tool.definition, description } }),
    );
  }

  readonly handlers: ServiceImpl<typeof ToolExecutionService> = {
    resolveTools: ({ names }) => {
      const wanted = names.includes("*") ? [...this.#tools.keys()] : names;
      const tools = [...this.#tools].filter(([name]) => wanted.includes(name)).map(([, tool]) => tool);
      tools.sort((a, b) => ((a.definition?.name ?? "") < (b.definition?.name ?? "") ? -1 : 1));
      return { tools, missing: wanted.filter((name) => !this.#tools.has(name)) };
    },
    executeTool: (request, context) => this.#execute(request, context.signal),
    executeToolUnary: async ({ call }, context) => {
      if (call === undefined) throw new AppError("INVALID_ARGUMENT", "call: is missing");
      for await (const { part } of this.#execute(call, context.signal)) {
        if (part.case === "result" || part.case === "error") return { outcome: part };
      }
      throw new AppError("CANCELLED", "the caller left");
    },
    cancelExecution: async ({ idempotencyKey, epoch, grace }) => {
      this.cancelled.push(idempotencyKey);
      const execution = this.#executions.get(idempotencyKey);
      if (execution === undefined) return { progress: ExecutionProgress.NOT_STARTED };
      if (epoch < execution.epoch) throw new AppError("EPOCH_STALE", "a lower epoch");
      if (execution.ended) return { progress: ExecutionProgress.DONE };
      execution.abort.abort();
      const graceMs = grace === undefined ? 1_000 : Number(grace.seconds) * 1_000 + grace.nanos / 1e6;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, graceMs);
      });
      await Promise.race([execution.outcome, late]);
      clearTimeout(timer);
      return { progress: execution.ended ? ExecutionProgress.PARTIAL : ExecutionProgress.MAY_STILL_RUN };
    },
  };

  async *#execute(request: ExecuteToolRequest, signal: AbortSignal) {
    this.requests.push(request);
    const name = [...this.#tools].find(([, tool]) => tool.toolId === request.toolId)?.[0];
    const handler = name === undefined ? undefined : this.#handlers.get(name);
    if (handler === undefined) throw new AppError("TOOL_NOT_FOUND", "no such tool");
    const known = this.#executions.get(request.idempotencyKey);
    // A failure that the run has on record is tried again.
    const again = known?.failed === true && request.afterFailures > known.failures;
    const execution =
      known === undefined || again
        ? this.#begin(request, handler, known === undefined ? 0 : known.failures + 1)
        : known;
    if (request.epoch < execution.epoch) throw new AppError("EPOCH_STALE", "a lower epoch");
    execution.epoch = request.epoch;
    yield { part: { case: "started" as const, value: { workerName: "" } } };
    for (let shown = 0; ; ) {
      while (shown < execution.output.length) {
        yield { part: { case: "output" as const, value: execution.output[shown] ?? "" } };
        shown += 1;
      }
      if (execution.ended || signal.aborted) break;
      await Promise.race([
        execution.outcome,
        new Promise<void>((resolve) => {
          execution.wake = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        }),
      ]);
    }
    if (signal.aborted) return;
    const outcome = await execution.outcome;
    yield outcome.case === "result"
      ? { part: { case: "result" as const, value: fromJson(ValueSchema, outcome.value) } }
      : { part: { case: "error" as const, value: { reason: Reason.TOOL_FAILED, message: outcome.value } } };
  }

  #begin(request: ExecuteToolRequest, handler: FakeHandler, failures: number): Execution {
    this.begun.push(request.idempotencyKey);
    const abort = new AbortController();
    const output: string[] = [];
    const run = async (): Promise<{ case: "result"; value: JsonValue } | { case: "error"; value: string }> => {
      try {
        const value = await handler({
          arguments: (request.arguments ?? {}) as Record<string, string | number>,
          idempotencyKey: request.idempotencyKey,
          signal: abort.signal,
          print: (text) => {
            output.push(text);
            execution.wake();
          },
        });
        return { case: "result", value };
      } catch (error) {
        return { case: "error", value: error instanceof Error ? error.message : String(error) };
      }
    };
    const execution: Execution = {
      abort,
      output,
      failures,
      epoch: request.epoch,
      ended: false,
      failed: false,
      wake: () => undefined,
      // Begun in the next turn of the event loop, when `execution` exists.
      outcome: Promise.resolve()
        .then(run)
        .then((outcome) => {
          execution.ended = true;
          execution.failed = outcome.case === "error";
          return outcome;
        }),
    };
    this.#executions.set(request.idempotencyKey, execution);
    return execution;
  }
}
