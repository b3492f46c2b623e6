import { create, fromBinary, fromJson, type JsonObject, toBinary, toJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { expect, test } from "vitest";
import { echo, graphOf, ref, refusals } from "../../../test/support/graphs.ts";
import type { AppError } from "../../runtime/errors/app-error.ts";
import { type Graph, graphDefaults } from "../domain/graph/graph.ts";
import { fromProtoGraph, graphDigest, toProtoGraph } from "./graph-codec.ts";

const everything: JsonObject = {
  name: "everything",
  description: "one of each",
  input_schema: { type: "object" },
  steps: [
    echo("first", { a: [ref("input.a"), null] }),
    {
      name: "tool",
      tool: { tool: "echo" },
      after: [{ step: "first", when: "output.ok" }],
      timeout: "5s",
      heartbeat_timeout: "1.500s",
      retry: { max_attempts: 3, initial_delay: "0.100s", max_delay: "10s", reasons: ["TOOL_FAILED"] },
      compensation: { tool: "undo", arguments: { id: ref("output.id") } },
    },
    {
      name: "model",
      model: { model: "m", instructions: "be short", prompt: ["x"], answer_schema: { type: "string" } },
    },
    { name: "agent", agent: { agent: "a", message: "x", answer_schema: {} } },
    { name: "approval", approval: { prompt: "ok?", expires_after: "60s", continue_on_refusal: true } },
    { name: "sleep", timer: { duration: "0s" } },
    { name: "until", timer: { until: ref("input.at") } },
    { name: "signal", signal: { signal: "paid", expires_after: "60s" } },
    { name: "each", fan_out: { over: ref("input.list"), agent: { agent: "a", message: ref("item") } } },
    { name: "by_name", child_run: { agent: "a" } },
    { name: "inline", child_run: { graph: { name: "c", steps: [echo("x")], output: null }, input: { a: 1 } } },
  ],
  output: { $literal: 1 },
};

test("a graph survives the way to a message, to bytes and back", () => {
  const graph = graphOf(everything);
  const bytes = toBinary(GraphSchema, toProtoGraph(graph));
  expect(fromProtoGraph(fromBinary(GraphSchema, bytes))).toEqual(graph);
});

test("defaults are filled in", () => {
  const { steps } = graphOf(everything);
  const of = (name: string) => steps.find((step) => step.name === name);
  expect(of("first")).toMatchObject({ timeoutMs: 30_000, heartbeatTimeoutMs: undefined, retry: graphDefaults.retry });
  expect(of("tool")).toMatchObject({
    timeoutMs: 5_000,
    heartbeatTimeoutMs: 1_500,
    retry: { maxAttempts: 3, initialDelayMs: 100, maxDelayMs: 10_000, reasons: ["TOOL_FAILED"] },
  });
  expect(
    ["model", "agent", "approval", "sleep", "signal", "each", "inline"].map((name) => of(name)?.timeoutMs),
  ).toEqual([30_000, 600_000, undefined, undefined, undefined, 600_000, undefined]);
  expect(of("each")?.task).toMatchObject({ concurrency: 16 });
  expect(of("by_name")?.task).toEqual({ kind: "child-run", definition: { agent: "a" }, input: undefined });
});

test("the digest stays what it is", () => {
  expect(graphDigest(graphOf(everything))).toBe(
    "sha256:abf4a5117532eb5030ddc361a649c4beded3b88eb3076fad12050ad7212e00f5",
  );
});

test("the digest tells apart what means something else, and nothing else", () => {
  const digest = (json: object) => graphDigest(graphOf({ steps: [echo("a", { x: 1, y: 2 })], ...json }));
  const same = digest({});
  expect(digest({ steps: [{ ...echo("a", { y: 2, x: 1 }), timeout: "30s", retry: { max_attempts: 5 } }] })).toBe(same);
  expect(digest({ steps: [echo("a", { x: 1, y: 3 })] })).not.toBe(same);
  expect(digest({ steps: [{ ...echo("a", { x: 1, y: 2 }), timeout: "31s" }] })).not.toBe(same);
  // No template of the output, and one that gives null.
  expect(digest({ output: null })).not.toBe(same);
});

test.each<[string, JsonObject]>([
  ["steps", { steps: Array.from({ length: 10_001 }, (_, i) => echo(`s${i}`)) }],
  ["bytes", { steps: [echo("a", { text: "x".repeat(5 * 1024 * 1024) })] }],
  ["childDepth", nested(9)],
])("too many %s are refused", (limit, json) => {
  const proto = fromJson(GraphSchema, { name: "g", ...json });
  expect(() => fromProtoGraph(proto, "graph")).toThrow(
    expect.objectContaining({
      reason: "LIMIT_EXCEEDED",
      metadata: expect.objectContaining({ limit: `graph_${limit}` }),
    }) as AppError,
  );
});

test("the steps of inline children count, too", () => {
  const child = { name: "c", steps: Array.from({ length: 600 }, (_, i) => echo(`s${i}`)) };
  const step = { name: "one", child_run: { graph: child } };
  const fanned = { name: "two", fan_out: { over: [], child_run: { graph: child } } };
  expect(refusals(() => graphOf({ steps: [step, fanned] }))).toEqual([
    ": has more than 1000 steps, inline children included",
  ]);
  expect(refusals(() => graphOf({ steps: [step] }))).toEqual([]);
});

test("numbers that JSON has not and reasons that are unknown are refused with their places", () => {
  const proto = fromJson(GraphSchema, {
    name: "g",
    steps: [
      { ...echo("a"), retry: { reasons: ["TOOL_FAILED", "NO_SUCH_REASON"] } },
      { name: "b", model: { prompt: 1 } },
    ],
  });
  const [a, b] = proto.steps;
  if (a?.task.case !== "tool" || b?.task.case !== "model") throw new Error("the steps are others");
  a.task.value.arguments = { deep: [{ x: Number.NaN }] };
  b.task.value.prompt = create(GraphSchema, { output: { kind: { case: "numberValue", value: Infinity } } }).output;
  expect(refusals(() => fromProtoGraph(proto, "graph"))).toEqual([
    "graph.steps[0].tool.arguments: has a number that is not finite, which is no JSON",
    "graph.steps[0].retry.reasons[1]: is no reason of cadre.errors.v1",
    "graph.steps[1].model.prompt: google.protobuf.Value cannot be NaN or Infinity",
  ]);
});

test("a message that was made of a graph is the JSON that REST shows", () => {
  const graph: Graph = graphOf({ steps: [echo("a", { x: ref("input") })] });
  expect(toJson(GraphSchema, toProtoGraph(graph), { useProtoFieldName: true })).toEqual({
    name: "test",
    steps: [
      {
        name: "a",
        timeout: "30s",
        retry: { max_attempts: 5, initial_delay: "0.200s", max_delay: "60s" },
        tool: { tool: "echo", arguments: { x: { $ref: "input" } } },
      },
    ],
  });
});

function nested(levels: number): JsonObject {
  const steps = levels === 1 ? [echo("x")] : [{ name: "x", child_run: { graph: nested(levels - 1) } }];
  return { name: "g", steps };
}
