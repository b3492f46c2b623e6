import { toJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { expect, test } from "vitest";
import { CliError } from "../failure.ts";
import { parseGraph } from "./read-graph.ts";

function failure(text: string): CliError {
  try {
    parseGraph("g.yaml", text);
  } catch (thrown) {
    if (thrown instanceof CliError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

const step = (body: string) => `name: g\nsteps:\n  - name: a\n    ${body}\n`;

test("YAML and JSON are read alike", () => {
  const yaml = `
name: g
steps:
  - name: a
    after: [{ step: b, when: output.ok }]
    timeout: 1.5m
    heartbeat_timeout: 1500ms
    retry: { max_attempts: 2, reasons: [TOOL_FAILED] }
    tool: { tool: echo, arguments: &args { x: { $ref: input }, n: 1.5, none: null, __proto__: kept } }
  - { name: b, tool: { tool: echo, arguments: *args } }
output: null
`;
  const args = JSON.parse('{"x": {"$ref": "input"}, "n": 1.5, "none": null, "__proto__": "kept"}') as unknown;
  const expected = {
    name: "g",
    steps: [
      {
        name: "a",
        after: [{ step: "b", when: "output.ok" }],
        timeout: "90s",
        heartbeat_timeout: "1.500s",
        retry: { max_attempts: 2, reasons: ["TOOL_FAILED"] },
        tool: { tool: "echo", arguments: args },
      },
      { name: "b", tool: { tool: "echo", arguments: args } },
    ],
    output: null,
  };
  for (const text of [yaml, JSON.stringify(expected)]) {
    expect(JSON.stringify(toJson(GraphSchema, parseGraph("g", text), { useProtoFieldName: true }))).toBe(
      JSON.stringify(expected),
    );
  }
});

test.each([
  [step("tol: { tool: echo }"), "g.yaml:4:5: steps[0]: there is no field tol; did you mean tool?"],
  [
    step("tool: { tool: echo, argumets: {} }"),
    "g.yaml:4:25: steps[0].tool: there is no field argumets; did you mean arguments?",
  ],
  [
    step("timeout: 5s"),
    "g.yaml:3:5: steps[0]: one of model, tool, agent, approval, timer, signal, fan_out, child_run is missing",
  ],
  [step("tool: { tool: echo }\n    model: { prompt: x }"), "g.yaml:5:5: steps[0]: tool and model exclude each other"],
  [step("timeout: soon\n    tool: { tool: echo }"), "g.yaml:4:14: steps[0].timeout must be a duration"],
  [step("tool: { tool: 5 }"), "g.yaml:4:19: steps[0].tool.tool must be a text"],
  [
    step("fan_out: { over: [], concurrency: 1.5, tool: { tool: echo } }"),
    "g.yaml:4:39: steps[0].fan_out.concurrency must be a whole number from 0",
  ],
  [
    step("approval: { prompt: x, continue_on_refusal: maybe }"),
    "g.yaml:4:49: steps[0].approval.continue_on_refusal must be true or false",
  ],
  [step("after: a\n    tool: { tool: echo }"), "g.yaml:4:12: steps[0].after must be a list"],
  [step("model: { prompt: .nan }"), "g.yaml:4:22: is no value of JSON"],
  [step("model: { prompt: { 1: 2 } }"), "g.yaml:4:24: a key must be a text"],
  [step("model: { prompt: *nobody }"), "g.yaml:4:22: there is no anchor nobody"],
  [step("model: { prompt: &self [*self] }"), "the file is nested more than 96 deep"],
  ["name: g\nname: h\n", "g.yaml:2:1: Map keys must be unique"],
  ["name: [", "g.yaml:1:8: "],
  ["- a\n", "g.yaml:1:1: the graph must be an object"],
  ["", "g.yaml:1:1: the graph must be an object"],
  [`# ${"x".repeat(5_000_000)}`, "is longer than"],
])("%j is refused at its place", (text, message) => {
  const error = failure(text);
  expect(error.message).toContain(message);
  expect(error.exitCode).toBe(2);
});

test("anchors that multiply are bounded", () => {
  const levels = Array.from(
    { length: 9 },
    (_, i) =>
      `x${i}: &x${i} [${Array(10)
        .fill(i === 0 ? "1" : `*x${i - 1}`)
        .join(", ")}]`,
  );
  const text = step(`model:\n      prompt:\n${levels.map((line) => `        ${line}`).join("\n")}`);
  expect(failure(text).message).toContain("the file has more than 300000 values, aliases followed");
});
