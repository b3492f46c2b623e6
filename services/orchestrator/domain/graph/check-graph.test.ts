import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { echo, graphOf, ref, refusals, toolsOf } from "../../../../test/support/graphs.ts";
import { AppError } from "../../../runtime/errors/app-error.ts";
import { checkGraph } from "./check-graph.ts";
import { compileGraph } from "./plan.ts";

const tool = toolsOf({
  lookup: {
    inputSchema: {
      type: "object",
      properties: { q: { type: "string" }, n: { type: "integer" }, mode: { enum: ["fast", "slow"] } },
      required: ["q"],
      additionalProperties: false,
    },
    outputSchema: {
      type: "object",
      properties: { title: { type: "string" }, items: { type: "array", items: { $ref: "#/$defs/item" } } },
      additionalProperties: false,
      $defs: { item: { type: "object", properties: { id: { type: "string" } }, additionalProperties: false } },
    },
  },
});

function problems(json: JsonObject): string[] {
  return refusals(() => checkGraph(graphOf(json), { tool, field: "graph" }));
}

function lookup(name: string, args: JsonObject, after: readonly (string | JsonObject)[] = []): JsonObject {
  return { ...echo(name, {}, after), tool: { tool: "lookup", arguments: args } };
}

const found = lookup("found", { q: "x" });
const inputSchema = { type: "object", properties: { name: { type: "string" } }, additionalProperties: false };

test.each<[string, JsonObject, string[]]>([
  [
    "a name that is there twice",
    { steps: [echo("a"), echo("a")] },
    ["graph.steps[1].name: a is the name of steps[0], too"],
  ],
  ["an edge from itself", { steps: [echo("a", {}, ["a"])] }, ["graph.steps[0].after[0].step: a is this step itself"]],
  [
    "edges and references to nothing",
    { steps: [echo("fetch"), echo("b", { x: ref("steps.fetsh.output") }, ["other"])], output: ref("steps.no.output") },
    [
      "graph.steps[1].tool.arguments.x: there is no step fetsh; did you mean fetch?",
      "graph.steps[1].after[0].step: there is no step other",
      "graph.output: there is no step no",
    ],
  ],
  [
    "values that are known elsewhere",
    {
      steps: [
        echo("a", { x: ref("item"), y: ref("index"), z: ref("output") }),
        { name: "b", fan_out: { over: ref("item"), tool: { tool: "echo", arguments: { x: ref("output") } } } },
      ],
      output: ref("item"),
    },
    [
      "graph.steps[0].tool.arguments.x: item is known only in the body of a fan-out",
      "graph.steps[0].tool.arguments.y: index is known only in the body of a fan-out",
      "graph.steps[0].tool.arguments.z: output is known only in a compensation and the condition of an edge",
      "graph.steps[1].fan_out.over: item is known only in the body of a fan-out",
      "graph.steps[1].fan_out.tool.arguments.x: output is known only in a compensation and the condition of an edge",
      "graph.output: item is known only in the body of a fan-out",
    ],
  ],
  [
    "arguments that the tool does not take",
    { steps: [lookup("a", { n: 1.5, mode: "medium", z: { $literal: 1 } })] },
    [
      "graph.steps[0].tool.arguments.q: is required",
      "graph.steps[0].tool.arguments.z: is not known there",
      "graph.steps[0].tool.arguments.n: is a number with a fraction, and must be an integer",
      'graph.steps[0].tool.arguments.mode: must be one of "fast", "slow"',
    ],
  ],
  [
    "references whose types cannot match",
    { steps: [found, lookup("b", { q: ref("steps.found.output.items"), n: ref("steps.found.output.title") })] },
    [
      "graph.steps[1].tool.arguments.q: steps.found.output.items gives a list, and a text is wanted",
      "graph.steps[1].tool.arguments.n: steps.found.output.title gives a text, and an integer is wanted",
    ],
  ],
  [
    "paths to what cannot be there",
    {
      input_schema: inputSchema,
      steps: [
        found,
        echo("b", {
          x: ref("steps.found.output.items[0].name"),
          y: ref("steps.found.output.title.x"),
          z: ref("input.nam"),
        }),
        { name: "ok", approval: { prompt: "?" } },
        { name: "at", timer: { duration: "1s" } },
        { name: "ask", model: { prompt: "?" } },
        echo("c", {
          x: ref("steps.ok.output.aproved"),
          y: ref("steps.at.output.time"),
          z: ref("steps.ask.output.answer"),
        }),
      ],
    },
    [
      'graph.steps[1].tool.arguments.x: steps.found.output.items[0].name: there is no "name" there',
      'graph.steps[1].tool.arguments.y: steps.found.output.title.x: what stands before its part 2 ("x") is a text',
      'graph.steps[1].tool.arguments.z: input.nam: there is no "nam" there',
      'graph.steps[5].tool.arguments.x: steps.ok.output.aproved: there is no "aproved" there',
      'graph.steps[5].tool.arguments.y: steps.at.output.time: there is no "time" there',
      'graph.steps[5].tool.arguments.z: steps.ask.output.answer: there is no "answer" there',
    ],
  ],
  [
    "conditions that cannot be bools",
    {
      steps: [
        found,
        { name: "ok", approval: { prompt: "?" } },
        echo("b", {}, [
          { step: "found", when: "output.title" },
          { step: "found", when: "!output.items || true" },
          { step: "ok", when: "output.aproved" },
          { step: "ok", when: "has(output.by) && steps.found.output.nope == 1" },
        ]),
      ],
    },
    [
      "graph.steps[2].after[0].when: output.title is a text, and a bool must stand there",
      "graph.steps[2].after[1].when: output.items is a list, and a bool must stand there",
      'graph.steps[2].after[2].when: output.aproved: there is no "aproved" there',
      'graph.steps[2].after[3].when: steps.found.output.nope: there is no "nope" there',
    ],
  ],
  [
    "fan-outs",
    {
      steps: [
        found,
        { name: "many", fan_out: { over: Array.from({ length: 257 }, () => 1), tool: { tool: "echo" } } },
        { name: "no_list", fan_out: { over: ref("steps.found.output.title"), tool: { tool: "echo" } } },
        {
          name: "each",
          fan_out: {
            over: ref("steps.found.output.items"),
            tool: { tool: "lookup", arguments: { q: ref("index"), n: ref("item.id") } },
          },
        },
        echo("after", { x: ref("steps.each.output[0].name"), y: ref("steps.each.output.title") }),
      ],
    },
    [
      "graph.steps[1].fan_out.over: has more than 256 elements",
      "graph.steps[2].fan_out.over: steps.found.output.title gives a text, and a list is wanted",
      "graph.steps[3].fan_out.tool.arguments.q: index gives an integer, and a text is wanted",
      "graph.steps[3].fan_out.tool.arguments.n: item.id gives a text, and an integer is wanted",
      'graph.steps[4].tool.arguments.x: steps.each.output[0].name: there is no "name" there',
      'graph.steps[4].tool.arguments.y: steps.each.output.title: what stands before its part 1 ("title") is a list',
    ],
  ],
  [
    "inline children",
    {
      steps: [
        {
          name: "child",
          child_run: {
            graph: {
              name: "c",
              input_schema: { type: "object", required: ["a"] },
              steps: [found, echo("y", { z: ref("steps.no.output") })],
            },
            input: { b: 1 },
          },
        },
        echo("after", { x: ref("steps.child.output.found.title"), y: ref("steps.child.output.nope") }),
      ],
    },
    [
      "graph.steps[0].child_run.graph.steps[1].tool.arguments.z: there is no step no",
      "graph.steps[0].child_run.input.a: is required",
      'graph.steps[1].tool.arguments.y: steps.child.output.nope: there is no "nope" there',
    ],
  ],
  [
    "compensations",
    {
      steps: [
        { ...found, compensation: { tool: "lookup", arguments: { q: ref("output.items"), n: ref("output.nope") } } },
      ],
    },
    [
      "graph.steps[0].compensation.arguments.q: output.items gives a list, and a text is wanted",
      'graph.steps[0].compensation.arguments.n: output.nope: there is no "nope" there',
    ],
  ],
  [
    "tools and schemas that are none",
    {
      steps: [
        { name: "a", tool: { tool: "nope" } },
        { name: "b", model: { prompt: "", answer_schema: { type: 1 } } },
      ],
    },
    [
      "graph.steps[1].model.answer_schema/type: must be equal to one of the allowed values",
      "graph.steps[1].model.answer_schema/type: must be array",
      "graph.steps[1].model.answer_schema/type: must match a schema in anyOf",
      "graph.steps[0].tool.tool: there is no tool nope",
    ],
  ],
  [
    "times and counts out of their ranges",
    {
      steps: [
        { ...echo("a"), timeout: "100000s", retry: { max_attempts: 99, initial_delay: "0.010s" } },
        { name: "b", timer: { duration: "1000000000s" } },
        { name: "c", timer: { duration: "-1s" } },
        { name: "d", timer: { until: "tomorrow" } },
        { name: "e", approval: { prompt: "" }, timeout: "1s", heartbeat_timeout: "1s" },
        { name: "f", fan_out: { over: [], concurrency: 300, tool: { tool: "echo" } } },
      ],
    },
    [
      "graph.steps[0].timeout: must be 1 to 86400000 ms",
      "graph.steps[0].retry.max_attempts: must be 1 to 10",
      "graph.steps[0].retry.initial_delay: must be 100 to 3600000 ms",
      "graph.steps[1].timer.duration: must be 0 to 34560000000 ms",
      "graph.steps[2].timer.duration: must be 0 to 34560000000 ms",
      "graph.steps[4].timeout: is of no use to a step that waits",
      "graph.steps[4].heartbeat_timeout: is of no use to a step that calls no tool",
      "graph.steps[5].fan_out.concurrency: must be 1 to 256",
      "graph.steps[3].timer.until: must be a time such as 2026-01-31T09:00:00Z",
    ],
  ],
])("%s: all of it is told", (_, json, expected) => {
  expect(problems(json)).toEqual(expected);
});

test.each<[string, JsonObject]>([
  ["a path that the schema leaves open", { steps: [echo("a"), echo("b", { x: ref("steps.a.output.any[3].thing") })] }],
  [
    "null where a skipped step was",
    {
      steps: [
        found,
        echo("maybe", {}, [{ step: "found", when: "has(output.title)" }]),
        lookup("c", { q: ref("steps.found.output.title") }, ["maybe", "found"]),
      ],
    },
  ],
  [
    "either type of a union",
    {
      input_schema: { properties: { q: { anyOf: [{ type: "string" }, { type: "null" }] } } },
      steps: [lookup("a", { q: ref("input.q") })],
    },
  ],
  [
    "an approval's output",
    {
      steps: [
        { name: "ok", approval: { prompt: "" } },
        echo("b", { x: ref("steps.ok.output.by") }, [{ step: "ok", when: "output.approved" }]),
      ],
    },
  ],
  ["a literal that looks like a reference", { steps: [echo("a", { x: { $literal: { $ref: "steps.no.output" } } })] }],
])("%s is accepted", (_, json) => {
  expect(problems(json)).toEqual([]);
});

test("200 steps in a row are accepted, 201 are not", () => {
  const row = (length: number) => ({
    steps: Array.from({ length }, (_, i) => echo(`s${i}`, {}, i === 0 ? [] : [`s${i - 1}`])),
  });
  expect(problems(row(200))).toEqual([]);
  expect(() => checkGraph(graphOf(row(201)), { tool })).toThrow(
    expect.objectContaining({
      reason: "LIMIT_EXCEEDED",
      metadata: expect.objectContaining({ limit: "graph_depth" }),
    }) as AppError,
  );
});

test("at most 100 problems are listed, and the rest is counted", () => {
  const steps = Array.from({ length: 500 }, (_, i) => echo(`s${i}`, {}, ["nope"]));
  expect(() => checkGraph(graphOf({ steps }), { tool })).toThrow(/^steps\[0\].*\(and 499 more\)$/);
  expect(problems({ steps })).toHaveLength(100);
});

test.each<[string, JsonObject]>([
  [
    "a thousand steps with forty edges each",
    {
      steps: Array.from({ length: 1_000 }, (_, i) =>
        echo(
          `s${i}`,
          {},
          Array.from({ length: 40 }, (_, j) => `s${(i + j * 7 + 1) % 1_000}`),
        ),
      ),
    },
  ],
  [
    "long conditions",
    {
      steps: Array.from({ length: 16 }, (_, i) =>
        echo(
          `s${i}`,
          {},
          i === 0 ? [] : [{ step: "s0", when: `${"output.a.b == 'x' || !has(output.d) || ".repeat(50)}true` }],
        ),
      ),
    },
  ],
  [
    "schemas that lead in circles",
    {
      input_schema: {
        $ref: "#/$defs/b",
        $defs: {
          a: { anyOf: [{ $ref: "#/$defs/a" }, { $ref: "#/$defs/b" }] },
          b: { anyOf: [{ $ref: "#/$defs/a" }, { $ref: "#/$defs/b" }], properties: { x: { $ref: "#/$defs/a" } } },
        },
      },
      steps: Array.from({ length: 500 }, (_, i) => lookup(`s${i}`, { q: ref(`input${".x".repeat(30)}`) })),
    },
  ],
  [
    "a large literal",
    { steps: [lookup("a", { q: "x", n: { $literal: Array.from({ length: 40_000 }, () => ({ a: 1 })) } })] },
  ],
])("%s: looked at in 200 ms of the processor", (_, json) => {
  const graph = graphOf(json);
  const attempt = () => refusals(() => checkGraph(graph, { tool }));
  attempt();
  // The processor's time, because other tests run beside; the best of three, because the compiler and the collector run in it.
  const times = [1, 2, 3].map(() => {
    const before = process.cpuUsage();
    attempt();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1_000;
  });
  expect(Math.min(...times)).toBeLessThan(200);
});

const dag = fc.array(fc.array(fc.nat(), { maxLength: 3 }), { minLength: 2, maxLength: 12 }).map((drafts) => ({
  steps: drafts.map((after, index) =>
    index === 0
      ? echo("s0")
      : echo(
          `s${index}`,
          { x: ref(`steps.s${(after[0] ?? 0) % index}.output`) },
          after.map((n) => `s${n % index}`),
        ),
  ),
}));

/** Replaces one value somewhere in a JSON document. */
function mutate(json: unknown, choose: () => number, put: unknown): unknown {
  if (typeof json !== "object" || json === null || choose() % 4 === 0) return put;
  const keys = Object.keys(json);
  const key = keys[choose() % keys.length];
  if (key === undefined) return put;
  const inner = mutate((json as Record<string, unknown>)[key], choose, put);
  return Array.isArray(json) ? json.with(Number(key), inner) : { ...json, [key]: inner };
}

test("whatever is changed in a graph, it is refused with a reason or compiles", () => {
  const puts = fc.constantFrom<unknown>(
    null,
    1,
    "",
    "s1",
    "s99",
    [],
    {},
    ref("steps.s1.output"),
    ref("nope"),
    ref("item"),
    "output.x ==",
    true,
  );
  fc.assert(
    fc.property(dag, fc.infiniteStream(fc.nat()), puts, (json, stream, put) => {
      const changed = mutate(json, () => stream.next().value ?? 0, put) as JsonObject;
      let graph: ReturnType<typeof graphOf>;
      try {
        graph = graphOf(changed);
      } catch {
        // The JSON is no message, or breaks what the contract's own rules hold.
        return;
      }
      try {
        checkGraph(graph, { tool });
      } catch (thrown) {
        if (!(thrown instanceof AppError)) throw thrown;
        expect(["INVALID_GRAPH", "LIMIT_EXCEEDED"]).toContain(thrown.reason);
        expect(thrown.violations.length).toBeGreaterThan(0);
        return;
      }
      expect(compileGraph(graph).nodes).toHaveLength(graph.steps.length);
    }),
    { numRuns: 500 },
  );
});
