import { fromJson, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { GraphSchema, StepSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import type { JsonObject, JsonValue } from "../json.ts";
import { jsonSchemaOf } from "../json-schema.ts";
import type { RunGraph } from "../runs/run-definition.ts";
import type { InferInput, StandardSchema } from "../standard-schema.ts";
import { createReference, type Reference, type Resolved, type Template } from "./reference.ts";
import type {
  AgentTaskOptions,
  AnswerOf,
  ApprovalOutput,
  ApprovalTaskOptions,
  ChildRunTaskOptions,
  ItemContext,
  ModelTaskOptions,
  ResultOf,
  SignalTaskOptions,
  StepContext,
  StepOptions,
  TimerTaskOptions,
  ToolOrName,
  ToolTaskOptions,
  WorkOptions,
} from "./step-options.ts";
import { templateJson, templateObject } from "./template.ts";

type GraphInit = MessageInitShape<typeof GraphSchema>;
type StepInit = MessageInitShape<typeof StepSchema>;
type TaskInit = NonNullable<StepInit["task"]>;
type Names<Steps> = keyof Steps & string;

/** What a graph is, but for its steps. */
export interface GraphOptions<Input extends StandardSchema> {
  /** What it is for. */
  readonly description?: string;
  /** What the run's input is held to; anything unless said. */
  readonly input?: Input;
  /** The JSON Schema of the input, for a validator that gives none. */
  readonly inputSchema?: JsonObject;
}

/** A name that no step has yet, and that means nothing else. */
type NewName<Name extends string, Steps> = Name extends Names<Steps> | "input" | "item" | "index" | "output"
  ? never
  : Name;

/** A graph with one step more. */
type WithStep<Input, Steps, Name extends string, Output> = GraphBuilder<
  Input,
  Steps & { readonly [Added in Name]: Output }
>;

/**
 * Builds the graph of a durable run, step by step. Each method gives a new
 * builder; a step can refer to those that stand before it. `Steps` are the
 * types of their outputs.
 */
export interface GraphBuilder<Input, Steps> {
  /** Adds a call of a tool. */
  tool<const Name extends string, const Tool extends ToolOrName>(
    name: NewName<Name, Steps>,
    options: ToolTaskOptions<StepContext<Input, Steps>, Tool> &
      StepOptions<StepContext<Input, Steps>, Names<Steps>, ResultOf<Tool>> &
      WorkOptions & {
        /** How long the tool may be silent, in milliseconds; until the timeout unless said. */
        readonly heartbeatTimeoutMs?: number;
      },
  ): WithStep<Input, Steps, Name, ResultOf<Tool>>;
  /** Adds a question to a model. */
  model<const Name extends string, Answer extends StandardSchema | undefined = undefined>(
    name: NewName<Name, Steps>,
    options: ModelTaskOptions<StepContext<Input, Steps>, Answer> &
      StepOptions<StepContext<Input, Steps>, Names<Steps>, AnswerOf<Answer>> &
      WorkOptions,
  ): WithStep<Input, Steps, Name, AnswerOf<Answer>>;
  /** Adds work for an agent. */
  agent<const Name extends string, Answer extends StandardSchema | undefined = undefined>(
    name: NewName<Name, Steps>,
    options: AgentTaskOptions<StepContext<Input, Steps>, Answer> &
      StepOptions<StepContext<Input, Steps>, Names<Steps>, AnswerOf<Answer>> &
      WorkOptions,
  ): WithStep<Input, Steps, Name, AnswerOf<Answer>>;
  /** Adds a question to a person. */
  approval<const Name extends string>(
    name: NewName<Name, Steps>,
    options: ApprovalTaskOptions<StepContext<Input, Steps>> &
      StepOptions<StepContext<Input, Steps>, Names<Steps>, ApprovalOutput>,
  ): WithStep<Input, Steps, Name, ApprovalOutput>;
  /** Adds a wait for a time. */
  timer<const Name extends string>(
    name: NewName<Name, Steps>,
    options: TimerTaskOptions<StepContext<Input, Steps>> &
      StepOptions<StepContext<Input, Steps>, Names<Steps>, { readonly at: string }>,
  ): WithStep<Input, Steps, Name, { readonly at: string }>;
  /** Adds a wait for a message. */
  signal<const Name extends string, Payload extends StandardSchema | undefined = undefined>(
    name: NewName<Name, Steps>,
    options: SignalTaskOptions<Payload> & StepOptions<StepContext<Input, Steps>, Names<Steps>, unknown>,
  ): WithStep<Input, Steps, Name, Payload extends StandardSchema ? InferInput<Payload> : unknown>;
  /** Adds a run that is started and waited for. */
  childRun<const Name extends string, ChildInput = JsonValue, ChildOutput = JsonValue>(
    name: NewName<Name, Steps>,
    options: ChildRunTaskOptions<StepContext<Input, Steps>, ChildInput, ChildOutput> &
      StepOptions<StepContext<Input, Steps>, Names<Steps>, ChildOutput>,
  ): WithStep<Input, Steps, Name, ChildOutput>;
  /**
   * Adds something that is done for each element of a list of at most 256; the
   * output is the list of the outputs, in order.
   *
   * @param over the list, or a reference to it
   * @param each makes the body with `task.tool`, `task.model`, `task.agent` or `task.childRun`
   */
  fanOut<const Name extends string, Item, Output>(
    name: NewName<Name, Steps>,
    over: (context: StepContext<Input, Steps>) => Template<readonly Item[]>,
    each: (task: ItemTasks<StepContext<Input, Steps> & ItemContext<Item>>) => ItemTask<Output>,
    options?: StepOptions<StepContext<Input, Steps>, Names<Steps>, readonly Output[]> &
      WorkOptions & {
        /** How many elements are worked on at once; 16 unless said, at most 256. */
        readonly concurrency?: number;
      },
  ): WithStep<Input, Steps, Name, readonly Output[]>;
  /** Says what the run gives, and ends the graph. */
  output<Output>(make: (context: StepContext<Input, Steps>) => Output): RunGraph<Input, Resolved<Output>>;
  /** Ends the graph. The run gives the outputs of the steps that no other waits for, by name. */
  build(): RunGraph<Input, Partial<Steps>>;
}

declare const itemOutput: unique symbol;

/** The body of a fan-out. */
export interface ItemTask<out Output> {
  /** Never there; carries the type. */
  readonly [itemOutput]?: Output;
  readonly task: TaskInit;
}

/** What can be the body of a fan-out. */
export interface ItemTasks<Context> {
  tool<const Tool extends ToolOrName>(options: ToolTaskOptions<Context, Tool>): ItemTask<ResultOf<Tool>>;
  model<Answer extends StandardSchema | undefined = undefined>(
    options: ModelTaskOptions<Context, Answer>,
  ): ItemTask<AnswerOf<Answer>>;
  agent<Answer extends StandardSchema | undefined = undefined>(
    options: AgentTaskOptions<Context, Answer>,
  ): ItemTask<AnswerOf<Answer>>;
  childRun<ChildInput = JsonValue, ChildOutput = JsonValue>(
    options: ChildRunTaskOptions<Context, ChildInput, ChildOutput>,
  ): ItemTask<ChildOutput>;
}

/**
 * Begins the graph of a durable run. In callbacks, `input` and the names of
 * steps stand for values that the run will have: their members can be named,
 * but not looked at, because there is no value yet.
 *
 * @param name lower-case letters, digits and hyphens
 * @throws TypeError if the input's validator gives no JSON Schema and none is stated
 *
 * @example
 * ```ts
 * import { graph } from "@cadre/sdk";
 * import { z } from "zod";
 *
 * const greet = graph("greet", { input: z.object({ name: z.string() }) })
 *   .model("write", { prompt: ({ input }) => ["Greet", input.name] })
 *   .approval("ok", { prompt: ({ write }) => write.text })
 *   .tool("send", { tool: "mail_send", arguments: ({ write }) => ({ text: write.text }), after: ["ok"] })
 *   .output(({ ok }) => ({ approvedBy: ok.by }));
 * ```
 */
export function graph<Input extends StandardSchema = StandardSchema>(
  name: string,
  options: GraphOptions<Input> = {},
): GraphBuilder<InferInput<Input>, unknown> {
  const { description = "", input, inputSchema } = options;
  const source = inputSchema ?? input;
  const init = {
    name,
    description,
    ...(source === undefined ? {} : { inputSchema: jsonSchemaOf(source, "input") }),
  };
  return createBuilder(init, []) as unknown as GraphBuilder<InferInput<Input>, unknown>;
}

/** The builder without its types, which exist at compile time only. */
type Untyped = { readonly [name: string]: Reference<unknown> };
type Make = (context: Untyped) => unknown;

/** What stands at the head of a graph. */
interface Head {
  readonly name: string;
  readonly description: string;
  readonly inputSchema?: JsonObject;
}

function createBuilder(init: Head, steps: readonly StepInit[]): GraphBuilder<unknown, Untyped> {
  const context = createContext(steps, {});

  function add(name: string, options: StepOptions<Untyped, string, unknown> & WorkOptions, task: TaskInit) {
    if (name in context || ["item", "index", "output"].includes(name)) {
      throw new TypeError(`${name} is the name of something else`);
    }
    return createBuilder(init, [...steps, stepInit(name, options, task, createContext(steps, { output: "output" }))]);
  }

  function end(output: Value | undefined): GraphInit {
    return { ...init, steps: [...steps], ...(output === undefined ? {} : { output }) };
  }

  const tasks = createTasks(context);
  const builder = {
    tool: (name: string, options: ToolTaskOptions<Untyped, string> & StepOptions<Untyped, string, unknown>) =>
      add(name, options, tasks.tool(options).task),
    model: (name: string, options: ModelTaskOptions<Untyped, undefined> & StepOptions<Untyped, string, unknown>) =>
      add(name, options, tasks.model(options).task),
    agent: (name: string, options: AgentTaskOptions<Untyped, undefined> & StepOptions<Untyped, string, unknown>) =>
      add(name, options, tasks.agent(options).task),
    childRun: (
      name: string,
      options: ChildRunTaskOptions<Untyped, unknown, unknown> & StepOptions<Untyped, string, unknown>,
    ) => add(name, options, tasks.childRun(options).task),
    approval: (name: string, options: ApprovalTaskOptions<Untyped> & StepOptions<Untyped, string, unknown>) =>
      add(name, options, {
        case: "approval",
        value: {
          prompt: valueOf(made(options.prompt, context)),
          ...expiry(options.expiresAfterMs),
          continueOnRefusal: options.continueOnRefusal ?? false,
        },
      }),
    timer: (name: string, options: TimerTaskOptions<Untyped> & StepOptions<Untyped, string, unknown>) =>
      add(name, options, {
        case: "timer",
        value: {
          due:
            options.until === undefined
              ? { case: "duration", value: durationFromMs(options.durationMs) }
              : { case: "until", value: valueOf(options.until(context)) },
        },
      }),
    signal: (name: string, options: SignalTaskOptions<undefined> & StepOptions<Untyped, string, unknown>) =>
      add(name, options, { case: "signal", value: { signal: options.signal, ...expiry(options.expiresAfterMs) } }),
    fanOut: (
      name: string,
      over: Make,
      each: (task: ItemTasks<Untyped>) => ItemTask<unknown>,
      options: StepOptions<Untyped, string, unknown> & { readonly concurrency?: number } = {},
    ) => {
      const { task } = each(createTasks(createContext(steps, { item: "item", index: "index" })));
      return add(name, options, {
        case: "fanOut",
        value: { over: valueOf(over(context)), concurrency: options.concurrency ?? 0, task: task as never },
      });
    },
    output: (make: Make) => end(valueOf(make(context))),
    build: () => end(undefined),
  };
  return builder as unknown as GraphBuilder<unknown, Untyped>;
}

function createTasks(context: Untyped): ItemTasks<Untyped> {
  return {
    tool: ({ tool, arguments: make }) => ({
      task: {
        case: "tool",
        value: { tool: nameOf(tool), ...(make === undefined ? {} : { arguments: argumentsOf(make, context) }) },
      },
    }),
    model: ({ model = "", instructions = "", prompt, answer, answerSchema }) => ({
      task: {
        case: "model",
        value: { model, instructions, prompt: valueOf(made(prompt, context)), ...answerInit(answer, answerSchema) },
      },
    }),
    agent: ({ agent, message, answer, answerSchema }) => ({
      task: {
        case: "agent",
        value: { agent, message: valueOf(made(message, context)), ...answerInit(answer, answerSchema) },
      },
    }),
    childRun: ({ run, input }) => ({
      task: {
        case: "childRun",
        value: {
          definition: typeof run === "string" ? { case: "agent", value: run } : { case: "graph", value: run },
          ...(input === undefined ? {} : { input: valueOf(input(context)) }),
        },
      },
    }),
  };
}

function stepInit(
  name: string,
  options: StepOptions<Untyped, string, unknown> & WorkOptions & { readonly heartbeatTimeoutMs?: number },
  task: TaskInit,
  compensationContext: Untyped,
): StepInit {
  const { after = [], timeoutMs, heartbeatTimeoutMs, retry, compensation } = options;
  return {
    name,
    after: after.map((edge) =>
      typeof edge === "string" ? { step: edge, when: "" } : { step: edge.step, when: edge.when ?? "" },
    ),
    ...(timeoutMs === undefined ? {} : { timeout: durationFromMs(timeoutMs) }),
    ...(heartbeatTimeoutMs === undefined ? {} : { heartbeatTimeout: durationFromMs(heartbeatTimeoutMs) }),
    ...(retry === undefined ? {} : { retry: retryInit(retry) }),
    ...(compensation === undefined
      ? {}
      : {
          compensation: {
            tool: nameOf(compensation.tool),
            ...(compensation.arguments === undefined
              ? {}
              : { arguments: argumentsOf(compensation.arguments as Make, compensationContext) }),
          },
        }),
    task,
  };
}

function retryInit({
  maxAttempts = 0,
  initialDelayMs,
  maxDelayMs,
  reasons = [],
}: NonNullable<StepOptions<Untyped, string, unknown>["retry"]>) {
  return {
    maxAttempts,
    ...(initialDelayMs === undefined ? {} : { initialDelay: durationFromMs(initialDelayMs) }),
    ...(maxDelayMs === undefined ? {} : { maxDelay: durationFromMs(maxDelayMs) }),
    reasons: [...reasons],
  };
}

function createContext(steps: readonly StepInit[], own: Readonly<Record<string, string>>): Untyped {
  const names = steps.map(({ name = "" }) => [name, createReference(`steps.${name}.output`)] as const);
  const others = Object.entries({ input: "input", ...own }).map(
    ([name, source]) => [name, createReference(source)] as const,
  );
  return Object.assign(Object.create(null) as object, Object.fromEntries([...others, ...names])) as Untyped;
}

function made(template: string | Make, context: Untyped): unknown {
  return typeof template === "string" ? template : template(context);
}

function argumentsOf(make: Make, context: Untyped): JsonObject {
  return templateObject(make(context), "the arguments of a tool");
}

function answerInit(answer: StandardSchema | undefined, answerSchema: JsonObject | undefined) {
  const source = answerSchema ?? answer;
  return source === undefined ? {} : { answerSchema: jsonSchemaOf(source, "input") };
}

function expiry(expiresAfterMs: number | undefined) {
  return expiresAfterMs === undefined ? {} : { expiresAfter: durationFromMs(expiresAfterMs) };
}

function nameOf(tool: ToolOrName): string {
  return typeof tool === "string" ? tool : tool.name;
}

function valueOf(template: unknown): Value {
  return fromJson(ValueSchema, templateJson(template));
}
