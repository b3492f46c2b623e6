import { createHash } from "node:crypto";
import type { JsonValue } from "@bufbuild/protobuf";
import { canonicalJson } from "../../../runtime/json-schema/canonical-json.ts";
import type { Json } from "../json.ts";
import { type Graph, type Step, type Task, taskField } from "./graph.ts";

/** JSON in which members may be absent. */
type Sparse = Json | { readonly [name: string]: Sparse | undefined } | readonly Sparse[];

/**
 * The digest of a graph: `sha256:` and 64 hexadecimal digits over the canonical
 * JSON (RFC 8785) of its parts by the contract's names, with every default
 * filled in, times in milliseconds as `…_ms`, absent parts left out, and
 * `"version": 1`. Graphs that mean the same have the same digest.
 */
export function graphDigest(graph: Graph): string {
  const known = digests.get(graph);
  if (known !== undefined) return known;
  const text = canonicalJson(withoutAbsent({ version: 1, ...graphParts(graph) }));
  const digest = `sha256:${createHash("sha256").update(text).digest("hex")}`;
  digests.set(graph, digest);
  return digest;
}

/** Graphs never change, and the same one is started often. */
const digests = new WeakMap<Graph, string>();

function graphParts({ name, description, inputSchema, steps, output }: Graph) {
  return { name, description, input_schema: inputSchema, steps: steps.map(stepParts), output };
}

function stepParts({ name, after, timeoutMs, heartbeatTimeoutMs, retry, compensation, task }: Step) {
  return {
    name,
    after: after.map(({ step, when }) => ({ step, when })),
    timeout_ms: timeoutMs,
    heartbeat_timeout_ms: heartbeatTimeoutMs,
    retry: {
      max_attempts: retry.maxAttempts,
      initial_delay_ms: retry.initialDelayMs,
      max_delay_ms: retry.maxDelayMs,
      reasons: retry.reasons,
    },
    compensation: compensation === undefined ? undefined : taskParts(compensation),
    [taskField[task.kind]]: taskParts(task),
  };
}

function taskParts(task: Task): Sparse {
  switch (task.kind) {
    case "model":
      return {
        model: task.model,
        instructions: task.instructions,
        prompt: task.prompt,
        answer_schema: task.answerSchema,
      };
    case "tool":
      return { tool: task.tool, arguments: task.arguments };
    case "agent":
      return { agent: task.agent, message: task.message, answer_schema: task.answerSchema };
    case "approval":
      return {
        prompt: task.prompt,
        expires_after_ms: task.expiresAfterMs,
        continue_on_refusal: task.continueOnRefusal,
      };
    case "timer":
      return "until" in task.due ? { until: task.due.until } : { duration_ms: task.due.durationMs };
    case "signal":
      return { signal: task.signal, expires_after_ms: task.expiresAfterMs };
    case "fan-out":
      return { over: task.over, concurrency: task.concurrency, [taskField[task.task.kind]]: taskParts(task.task) };
    case "child-run":
      return "graph" in task.definition
        ? { graph: graphParts(task.definition.graph), input: task.input }
        : { agent: task.definition.agent, input: task.input };
  }
}

function withoutAbsent(value: Sparse): JsonValue {
  return JSON.parse(JSON.stringify(value)) as JsonValue;
}
