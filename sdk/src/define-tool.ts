import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { SideEffects, type ToolDefinition } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { CadreErrorReason } from "./error.ts";
import { toJsonValue } from "./json.ts";
import { jsonSchemaOf } from "./json-schema.ts";
import { describeIssues, type InferInput, type InferOutput, type StandardSchema } from "./standard-schema.ts";

/** What a handler knows of its call. */
export interface ToolCallContext {
  /** Aborts when the call was cancelled, or when its time is over. Give it to whatever the handler waits for. */
  readonly signal: AbortSignal;
  /** The same for every attempt of a step: give it to what the tool calls, so that nothing happens twice. */
  readonly idempotencyKey: string;
  /** The call's id, `call_…`. */
  readonly callId: string;
  /** How often the step was tried, from 1. */
  readonly attempt: number;
  /** The run that the call is a step of; empty for a direct call. */
  readonly runId: string;
  /** The W3C trace context to go on with; empty without tracing. */
  readonly traceparent: string;
  /**
   * Shows text to whoever follows the call, in batches of at most 25 ms.
   * Resolves when there is room for more: a handler that prints much awaits it.
   * Past 1 MiB that waits to be sent, text is left out, and a note says so.
   */
  print(text: string): Promise<void>;
}

/** What a tool is, but for its schemas and its handler. */
export interface ToolOptions {
  /** What models and agents call it: lower-case letters, digits and underscores, 2 to 64. Unique in the org. */
  readonly name: string;
  /** What it does, for the model that decides whether to call it; at most 4,096 characters. */
  readonly description: string;
  /**
   * What a call does outside: `none`, `idempotent` if it honours
   * `idempotencyKey`, or `effectful`, which is taken unless said.
   */
  readonly sideEffects?: "none" | "idempotent" | "effectful";
  /** How long a call may take, in milliseconds; 30,000 unless said, at most 15 minutes. */
  readonly timeoutMs?: number;
}

/** A tool whose arguments a validator describes. */
export interface TypedToolOptions<Input extends StandardSchema, Output extends StandardSchema> extends ToolOptions {
  /** The arguments: a validator for an object, which can give JSON Schema. */
  readonly input: Input;
  /** The JSON Schema of the arguments, for a validator that gives none. */
  readonly inputSchema?: JsonObject;
  /** The result; any JSON value unless said. */
  readonly output?: Output;
  /** The JSON Schema of the result, for a validator that gives none. */
  readonly outputSchema?: JsonObject;
  readonly handler: (
    args: InferOutput<Input>,
    context: ToolCallContext,
  ) => InferInput<Output> | Promise<InferInput<Output>>;
}

/** A tool whose arguments a JSON Schema describes. */
export interface UntypedToolOptions extends ToolOptions {
  readonly input?: undefined;
  /** The JSON Schema (2020-12) of the arguments; an object type. */
  readonly inputSchema: JsonObject;
  /** The JSON Schema of the result; any JSON value unless said. */
  readonly outputSchema?: JsonObject;
  readonly handler: (args: JsonObject, context: ToolCallContext) => unknown;
}

declare const toolTypes: unique symbol;

/** A tool that can be registered and served; `defineTool` makes it. It knows the types of its arguments and result. */
export interface DefinedTool<out Args = unknown, out Result = unknown> {
  /** Never there; carries the types. */
  readonly [toolTypes]?: { readonly args: Args; readonly result: Result };
  readonly name: string;
  /** How long a call may take, in milliseconds. */
  readonly timeoutMs: number;
  /** The definition as the server keeps it. */
  readonly definition: ToolDefinitionInit;
  /**
   * Checks the arguments, runs the handler, checks and copies the result.
   *
   * @throws ToolFailure, or whatever the handler throws
   */
  run(args: JsonObject, context: ToolCallContext): Promise<JsonValue>;
}

/** A definition in the form in which messages are made. */
export type ToolDefinitionInit = Omit<ToolDefinition, "$typeName" | "$unknown">;

/**
 * Thrown by a handler to tell the model and the user why it failed. The text of
 * anything else that is thrown stays in the process, because it may hold what
 * others must not see; the model is told only that the tool failed.
 */
export class ToolFailure extends Error {
  override readonly name = "ToolFailure";
  /** `TOOL_FAILED` unless the arguments or the result were wrong. */
  readonly reason: CadreErrorReason;

  /** @param message what the model and the user are told; at most 4,096 characters of it are kept */
  constructor(message: string, options: { readonly cause?: unknown; readonly reason?: CadreErrorReason } = {}) {
    super(message.slice(0, 4096), options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = options.reason ?? "TOOL_FAILED";
  }
}

const sideEffectsNumber = {
  none: SideEffects.NONE,
  idempotent: SideEffects.IDEMPOTENT,
  effectful: SideEffects.EFFECTFUL,
} as const;

/**
 * Defines a tool: what it is for the server, and the handler that runs it. The
 * handler's types follow from the validators, which may be of any library that
 * follows Standard Schema.
 *
 * @throws TypeError if a validator gives no JSON Schema and none is stated
 *
 * @example
 * ```ts
 * import { defineTool } from "@cadre/sdk";
 * import { z } from "zod";
 *
 * const orderStatus = defineTool({
 *   name: "order_status",
 *   description: "Looks up where an order is.",
 *   input: z.object({ orderId: z.string().describe("For example A-1001.") }),
 *   sideEffects: "none",
 *   handler: async ({ orderId }, { signal }) => {
 *     const response = await fetch(`https://shop.example/orders/${orderId}`, { signal });
 *     return await response.json();
 *   },
 * });
 * ```
 */
export function defineTool<Input extends StandardSchema, Output extends StandardSchema = StandardSchema>(
  options: TypedToolOptions<Input, Output>,
): DefinedTool<InferInput<Input>, InferOutput<Output>>;
/** Defines a tool by JSON Schemas. The handler gets the arguments as JSON, checked by the server. */
export function defineTool(options: UntypedToolOptions): DefinedTool;
export function defineTool(
  options: TypedToolOptions<StandardSchema, StandardSchema> | UntypedToolOptions,
): DefinedTool {
  const { name, description, sideEffects = "effectful", timeoutMs = 30_000, inputSchema, outputSchema } = options;
  const input = options.input;
  const output = options.input === undefined ? undefined : options.output;
  const inputSource = inputSchema ?? input;
  if (inputSource === undefined) throw new TypeError(`${name}: input or inputSchema is missing`);
  const outputSource = outputSchema ?? output;
  const handler = options.handler as (args: unknown, context: ToolCallContext) => unknown;
  return {
    name,
    timeoutMs,
    definition: {
      name,
      description,
      inputSchema: jsonSchemaOf(inputSource, "input"),
      ...(outputSource === undefined ? {} : { outputSchema: jsonSchemaOf(outputSource, "output") }),
      sideEffects: sideEffectsNumber[sideEffects],
      timeout: durationFromMs(timeoutMs),
    },
    async run(args, context) {
      const checked = input === undefined ? args : await check(input, args, "TOOL_ARGUMENTS_INVALID");
      const result = await handler(checked, context);
      const valid = output === undefined ? result : await check(output, result, "TOOL_RESULT_INVALID");
      try {
        return toJsonValue(valid);
      } catch (thrown) {
        throw new ToolFailure("the result is no JSON", { cause: thrown, reason: "TOOL_RESULT_INVALID" });
      }
    },
  };
}

async function check(schema: StandardSchema, value: unknown, reason: CadreErrorReason): Promise<unknown> {
  const result = await schema["~standard"].validate(value);
  if (result.issues === undefined) return result.value;
  throw new ToolFailure(describeIssues(result.issues), { reason });
}
