import {
  create,
  type MessageInitShape,
  type JsonObject as ProtoJsonObject,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type Duration, durationFromMs, durationMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  GraphSchema,
  type AgentTask as ProtoAgentTask,
  type ChildRunTask as ProtoChildRunTask,
  type FanOutTask as ProtoFanOutTask,
  type Graph as ProtoGraph,
  type ModelTask as ProtoModelTask,
  type RetryPolicy as ProtoRetryPolicy,
  type Step as ProtoStep,
  type ToolTask as ProtoToolTask,
  type StepSchema,
} from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { AppError, type FieldViolation } from "../../runtime/errors/app-error.ts";
import { isFailureReason } from "../../runtime/errors/failure.ts";
import { graphDigest } from "../domain/graph/digest.ts";
import {
  type Graph,
  graphDefaults,
  graphLimits,
  type ItemTask,
  type RetryPolicy,
  type Step,
  type Task,
  type ToolTask,
} from "../domain/graph/graph.ts";
import { graphTooLarge } from "../domain/graph/problems.ts";
import type { Json, JsonObject } from "../domain/json.ts";
import { toStruct, toValue } from "./proto-values.ts";

export { graphDigest };

/**
 * Takes a graph over from a request whose rules were checked, and fills in the
 * defaults. Its size is looked at first, so that a huge one costs little.
 *
 * @param field the graph's path in the request, for example `graph`
 * @throws AppError LIMIT_EXCEEDED if it is too large; INVALID_ARGUMENT with
 * violations for a number that JSON has not, and for an unknown reason
 */
export function fromProtoGraph(proto: ProtoGraph, field = ""): Graph {
  assertSize(proto, field);
  const reader = new GraphReader();
  const graph = reader.graph(proto, field === "" ? "" : `${field}.`);
  reader.assertValid();
  return graph;
}

/** The graph as a message; defaults stand in it as values of their own. */
export function toProtoGraph(graph: Graph): ProtoGraph {
  return create(GraphSchema, graphInit(graph));
}

/** The graph as an encoded message: made once, as graphs never change, and the same one is started often. */
export function encodeGraph(graph: Graph): Uint8Array {
  let encoded = encodings.get(graph);
  if (encoded === undefined) {
    encoded = toBinary(GraphSchema, toProtoGraph(graph));
    encodings.set(graph, encoded);
  }
  return encoded;
}

const encodings = new WeakMap<Graph, Uint8Array>();

function assertSize(proto: ProtoGraph, field: string): void {
  let steps = 0;
  const waiting = [{ graph: proto, depth: 1 }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    steps += next.graph.steps.length;
    if (steps > graphLimits.steps) {
      throw graphTooLarge(field, `has more than ${graphLimits.steps} steps, inline children included`, "steps");
    }
    if (next.depth > graphLimits.childDepth) {
      throw graphTooLarge(
        field,
        `has children within each other, more than ${graphLimits.childDepth} deep`,
        "childDepth",
      );
    }
    for (const { task } of next.graph.steps) {
      const body = task.case === "fanOut" ? task.value.task : task;
      if (body.case === "childRun" && body.value.definition.case === "graph") {
        waiting.push({ graph: body.value.definition.value, depth: next.depth + 1 });
      }
    }
  }
  if (toBinary(GraphSchema, proto).byteLength > graphLimits.bytes) {
    throw graphTooLarge(field, `is larger than ${graphLimits.bytes} bytes`, "bytes");
  }
}

class GraphReader {
  readonly #violations: FieldViolation[] = [];

  assertValid(): void {
    const first = this.#violations[0];
    if (first === undefined) return;
    throw new AppError("INVALID_ARGUMENT", `${first.field}: ${first.message}`, { violations: this.#violations });
  }

  graph(proto: ProtoGraph, path: string): Graph {
    return {
      name: proto.name,
      description: proto.description,
      inputSchema: proto.inputSchema === undefined ? undefined : this.#object(proto.inputSchema, `${path}input_schema`),
      steps: proto.steps.map((step, index) => this.#step(step, `${path}steps[${index}]`)),
      output: proto.output === undefined ? undefined : this.#json(proto.output, `${path}output`),
    };
  }

  #step(proto: ProtoStep, path: string): Step {
    const task = this.#task(proto.task, path);
    return {
      name: proto.name,
      after: proto.after.map(({ step, when }) => ({ step, when })),
      timeoutMs: proto.timeout === undefined ? defaultTimeoutMs(task) : durationMs(proto.timeout),
      heartbeatTimeoutMs: optionalMs(proto.heartbeatTimeout),
      retry: this.#retry(proto.retry, `${path}.retry`),
      compensation:
        proto.compensation === undefined ? undefined : this.#tool(proto.compensation, `${path}.compensation`),
      task,
    };
  }

  #retry(proto: ProtoRetryPolicy | undefined, path: string): RetryPolicy {
    const { retry } = graphDefaults;
    if (proto === undefined) return retry;
    return {
      maxAttempts: proto.maxAttempts === 0 ? retry.maxAttempts : proto.maxAttempts,
      initialDelayMs: optionalMs(proto.initialDelay) ?? retry.initialDelayMs,
      maxDelayMs: optionalMs(proto.maxDelay) ?? retry.maxDelayMs,
      reasons: proto.reasons.filter((reason, index) => {
        if (isFailureReason(reason)) return true;
        this.#refuse(`${path}.reasons[${index}]`, "is no reason of cadre.errors.v1", "failure_reason");
        return false;
      }) as RetryPolicy["reasons"],
    };
  }

  #task(task: ProtoStep["task"], path: string): Task {
    switch (task.case) {
      case "approval":
        return {
          kind: "approval",
          prompt: this.#json(task.value.prompt, `${path}.approval.prompt`),
          expiresAfterMs: optionalMs(task.value.expiresAfter),
          continueOnRefusal: task.value.continueOnRefusal,
        };
      case "timer": {
        const { due } = task.value;
        if (due.case === "until") {
          return { kind: "timer", due: { until: this.#json(due.value, `${path}.timer.until`) } };
        }
        return { kind: "timer", due: { durationMs: optionalMs(due.value) ?? 0 } };
      }
      case "signal":
        return { kind: "signal", signal: task.value.signal, expiresAfterMs: optionalMs(task.value.expiresAfter) };
      case "fanOut":
        return {
          kind: "fan-out",
          over: this.#json(task.value.over, `${path}.fan_out.over`),
          concurrency: task.value.concurrency === 0 ? graphDefaults.concurrency : task.value.concurrency,
          task: this.#itemTask(task.value.task, `${path}.fan_out`),
        };
      default:
        return this.#itemTask(task, path);
    }
  }

  #itemTask(task: ProtoFanOutTask["task"], path: string): ItemTask {
    switch (task.case) {
      case "model":
        return this.#model(task.value, `${path}.model`);
      case "tool":
        return this.#tool(task.value, `${path}.tool`);
      case "agent":
        return this.#agent(task.value, `${path}.agent`);
      case "childRun":
        return this.#childRun(task.value, `${path}.child_run`);
      case undefined:
        // The rules of the contract demand one; who gets here did not check them.
        throw new AppError("INVALID_ARGUMENT", `${path}: has no task`, {
          violations: [{ field: path, message: "has no task" }],
        });
    }
  }

  #model(proto: ProtoModelTask, path: string): ItemTask {
    return {
      kind: "model",
      model: proto.model,
      instructions: proto.instructions,
      prompt: this.#json(proto.prompt, `${path}.prompt`),
      answerSchema:
        proto.answerSchema === undefined ? undefined : this.#object(proto.answerSchema, `${path}.answer_schema`),
    };
  }

  #tool(proto: ProtoToolTask, path: string): ToolTask {
    return { kind: "tool", tool: proto.tool, arguments: this.#object(proto.arguments ?? {}, `${path}.arguments`) };
  }

  #agent(proto: ProtoAgentTask, path: string): ItemTask {
    return {
      kind: "agent",
      agent: proto.agent,
      message: this.#json(proto.message, `${path}.message`),
      answerSchema:
        proto.answerSchema === undefined ? undefined : this.#object(proto.answerSchema, `${path}.answer_schema`),
    };
  }

  #childRun(proto: ProtoChildRunTask, path: string): ItemTask {
    const { definition } = proto;
    return {
      kind: "child-run",
      definition:
        definition.case === "graph"
          ? { graph: this.graph(definition.value, `${path}.graph.`) }
          : { agent: definition.value ?? "" },
      input: proto.input === undefined ? undefined : this.#json(proto.input, `${path}.input`),
    };
  }

  #json(value: Value | undefined, path: string): Json {
    if (value === undefined) return null;
    try {
      return toJson(ValueSchema, value) as Json;
    } catch (cause) {
      // It has no value, or a number that is not finite.
      this.#refuse(path, cause instanceof Error ? cause.message : "is no JSON", "json");
      return null;
    }
  }

  #object(struct: ProtoJsonObject, path: string): JsonObject {
    if (!isFinite(struct)) this.#refuse(path, "has a number that is not finite, which is no JSON", "json");
    return struct as JsonObject;
  }

  #refuse(field: string, message: string, rule: string): void {
    if (this.#violations.length < 100) this.#violations.push({ field, message, rule });
  }
}

/** Whether all numbers in a value are finite; a Struct on the wire can hold others. */
function isFinite(value: unknown): boolean {
  if (typeof value === "number") return Number.isFinite(value);
  return typeof value !== "object" || value === null || Object.values(value).every(isFinite);
}

function defaultTimeoutMs(task: Task): number | undefined {
  const { kind } = task.kind === "fan-out" ? task.task : task;
  if (kind === "agent") return graphDefaults.agentTimeoutMs;
  return kind === "model" || kind === "tool" ? graphDefaults.timeoutMs : undefined;
}

function optionalMs(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : durationMs(duration);
}

type GraphInit = MessageInitShape<typeof GraphSchema>;
type StepInit = MessageInitShape<typeof StepSchema>;

function graphInit(graph: Graph): GraphInit {
  return {
    name: graph.name,
    description: graph.description,
    ...(graph.inputSchema === undefined ? {} : { inputSchema: toStruct(graph.inputSchema) }),
    steps: graph.steps.map(stepInit),
    ...(graph.output === undefined ? {} : { output: toValue(graph.output) }),
  };
}

function stepInit(step: Step): StepInit {
  return {
    name: step.name,
    after: step.after.map((edge) => ({ ...edge })),
    ...(step.timeoutMs === undefined ? {} : { timeout: durationFromMs(step.timeoutMs) }),
    ...(step.heartbeatTimeoutMs === undefined ? {} : { heartbeatTimeout: durationFromMs(step.heartbeatTimeoutMs) }),
    retry: {
      maxAttempts: step.retry.maxAttempts,
      initialDelay: durationFromMs(step.retry.initialDelayMs),
      maxDelay: durationFromMs(step.retry.maxDelayMs),
      reasons: [...step.retry.reasons],
    },
    ...(step.compensation === undefined ? {} : { compensation: toolInit(step.compensation) }),
    task: taskInit(step.task),
  };
}

function taskInit(task: Task): NonNullable<StepInit["task"]> {
  switch (task.kind) {
    case "approval":
      return {
        case: "approval",
        value: {
          prompt: toValue(task.prompt),
          ...expiryInit(task.expiresAfterMs),
          continueOnRefusal: task.continueOnRefusal,
        },
      };
    case "timer":
      return {
        case: "timer",
        value: {
          due:
            "until" in task.due
              ? { case: "until", value: toValue(task.due.until) }
              : { case: "duration", value: durationFromMs(task.due.durationMs) },
        },
      };
    case "signal":
      return { case: "signal", value: { signal: task.signal, ...expiryInit(task.expiresAfterMs) } };
    case "fan-out":
      return {
        case: "fanOut",
        value: { over: toValue(task.over), concurrency: task.concurrency, task: itemTaskInit(task.task) },
      };
    default:
      return itemTaskInit(task);
  }
}

function itemTaskInit(task: ItemTask) {
  switch (task.kind) {
    case "model": {
      const { model, instructions, prompt, answerSchema } = task;
      return {
        case: "model" as const,
        value: { model, instructions, prompt: toValue(prompt), ...answerInit(answerSchema) },
      };
    }
    case "tool":
      return { case: "tool" as const, value: toolInit(task) };
    case "agent": {
      const { agent, message, answerSchema } = task;
      return { case: "agent" as const, value: { agent, message: toValue(message), ...answerInit(answerSchema) } };
    }
    case "child-run":
      return {
        case: "childRun" as const,
        value: {
          definition:
            "graph" in task.definition
              ? { case: "graph" as const, value: graphInit(task.definition.graph) }
              : { case: "agent" as const, value: task.definition.agent },
          ...(task.input === undefined ? {} : { input: toValue(task.input) }),
        },
      };
  }
}

function toolInit(task: ToolTask) {
  return { tool: task.tool, arguments: toStruct(task.arguments) };
}

function answerInit(schema: JsonObject | undefined) {
  return schema === undefined ? {} : { answerSchema: toStruct(schema) };
}

function expiryInit(expiresAfterMs: number | undefined) {
  return expiresAfterMs === undefined ? {} : { expiresAfter: durationFromMs(expiresAfterMs) };
}
