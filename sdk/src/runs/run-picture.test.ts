import { create, fromJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { RunSchema, RunState, StepState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { expect, test } from "vitest";
import { pictureOf, toMermaid } from "../index.ts";

const graph = fromJson(GraphSchema, {
  name: "g",
  steps: [
    { name: "fetch", tool: { tool: "fetch", arguments: { url: { $ref: "input.url" } } } },
    {
      name: "each",
      fan_out: {
        over: { $ref: "steps.fetch.output.items" },
        tool: { tool: "echo", arguments: { text: { $ref: "item" } } },
      },
    },
    { name: "ok", approval: { prompt: { $ref: "steps.fetch.output.title" } } },
    {
      name: "end",
      after: [{ step: "ok", when: 'output.reason == "a<b"' }],
      tool: { tool: "echo", arguments: { all: { $ref: "steps.each.output" } } },
    },
    { name: "quote", tool: { tool: "echo", arguments: { it: { $literal: { $ref: "steps.end.output" } } } } },
  ],
});

const run = create(RunSchema, {
  runId: "run_1",
  name: "g",
  state: RunState.RUNNING,
  graph,
  steps: [
    { name: "fetch", state: StepState.SUCCEEDED, attempt: 2 },
    {
      name: "each",
      state: StepState.RUNNING,
      items: [{ state: StepState.SUCCEEDED }, { state: StepState.SUCCEEDED }, { state: StepState.RUNNING }],
    },
  ],
});

test("a picture has each step with its state, and what it waits for, by edges or by references", () => {
  const { nodes, edges, state } = pictureOf(run);
  expect(state).toBe("running");
  expect(nodes.map(({ name, kind, state: step }) => [name, kind, step])).toEqual([
    ["fetch", "tool", "succeeded"],
    ["each", "fan_out", "running"],
    ["ok", "approval", "pending"],
    ["end", "tool", "pending"],
    ["quote", "tool", "pending"],
  ]);
  expect(nodes[1]?.items).toEqual({ succeeded: 2, running: 1 });
  expect(edges).toEqual([
    { from: "fetch", to: "each", when: "" },
    { from: "fetch", to: "ok", when: "" },
    { from: "ok", to: "end", when: 'output.reason == "a<b"' },
    { from: "each", to: "end", when: "" },
  ]);
});

test("Mermaid gets ids of its own, escaped labels, and a class for each state", () => {
  const text = toMermaid(pictureOf(run));
  expect(text.split("\n").slice(0, 10)).toEqual([
    "flowchart TD",
    '  s0["fetch · tool<br>succeeded, attempt 2"]:::succeeded',
    '  s1["each · fan_out<br>running<br>2 succeeded, 1 running"]:::running',
    '  s2["ok · approval<br>pending"]:::pending',
    '  s3["end · tool<br>pending"]:::pending',
    '  s4["quote · tool<br>pending"]:::pending',
    "  s0 --> s1",
    "  s0 --> s2",
    '  s2 -->|"output.reason == #quot;a&lt;b#quot;"| s3',
    "  s1 --> s3",
  ]);
});

test("a turn's calls follow one another", () => {
  const turn = create(RunSchema, {
    runId: "run_2",
    name: "assistant",
    state: RunState.SUCCEEDED,
    steps: [
      { name: "model", state: StepState.SUCCEEDED, attempt: 1 },
      { name: "calculator", state: StepState.FAILED, attempt: 1, error: { message: "no" } },
    ],
  });
  expect(pictureOf(turn)).toMatchObject({
    nodes: [
      { name: "1 model", kind: "model" },
      { name: "2 calculator", kind: "tool", state: "failed", error: "no" },
    ],
    edges: [{ from: "1 model", to: "2 calculator" }],
  });
});
