import type { JsonObject } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { echo, graphOf, ref, refusals } from "../../../../test/support/graphs.ts";
import { compileGraph, type Plan } from "./plan.ts";

function shape({ nodes }: Plan): Record<string, { waitsFor: string[]; edges: string[] }> {
  const name = (position: number) => nodes[position]?.name ?? "?";
  return Object.fromEntries(
    nodes.map((node) => [
      node.name,
      {
        waitsFor: node.waitsFor.map(name),
        edges: node.edges.map(({ from, when }) => `${name(from)}${when ? " if" : ""}`),
      },
    ]),
  );
}

test("a step is gated by the steps that it refers to, unless it has edges of its own", () => {
  const plan = compileGraph(
    graphOf({
      steps: [
        echo("c", { x: ref("steps.a.output"), y: ref("steps.b.output") }),
        echo("d", { x: ref("steps.a.output") }, ["b", { step: "b", when: "steps.c.output.x == output.y" }]),
        echo("a"),
        echo("b"),
      ],
    }),
  );
  expect(plan.nodes.map(({ name }) => name)).toEqual(["a", "b", "c", "d"]);
  expect(shape(plan)).toEqual({
    a: { waitsFor: [], edges: [] },
    b: { waitsFor: [], edges: [] },
    c: { waitsFor: ["a", "b"], edges: ["a", "b"] },
    d: { waitsFor: ["a", "b", "c"], edges: ["b", "b if"] },
  });
  expect(plan.finals.map(({ name }) => name)).toEqual(["d"]);
  expect(plan.nodes.map(({ next }) => next)).toEqual([[2, 3], [2, 3], [3], []]);
});

test("a compensation waits for what it refers to", () => {
  const plan = compileGraph(
    graphOf({
      steps: [
        {
          ...echo("pay"),
          compensation: { tool: "echo", arguments: { id: ref("output.id"), to: ref("steps.who.output") } },
        },
        echo("who"),
      ],
    }),
  );
  expect(shape(plan)["pay"]).toEqual({ waitsFor: ["who"], edges: ["who"] });
});

test("a plan names what runs need to find, also in inline children", () => {
  const child: JsonObject = {
    name: "child",
    steps: [
      { name: "m", model: { model: "large", prompt: "x" }, compensation: { tool: "undo" } },
      { name: "g", fan_out: { over: [], child_run: { agent: "helper" } } },
      { name: "n", child_run: { graph: { name: "inner", steps: [{ name: "t", tool: { tool: "deep" } }] } } },
    ],
  };
  const { tools, agents, models } = compileGraph(
    graphOf({
      steps: [
        echo("a"),
        { name: "b", fan_out: { over: [], child_run: { graph: child } } },
        { name: "c", agent: { agent: "writer", message: "x" } },
        { name: "d", model: { prompt: "x" } },
      ],
    }),
  );
  expect({ tools, agents, models }).toEqual({
    tools: ["deep", "echo", "undo"],
    agents: ["helper", "writer"],
    models: ["", "large"],
  });
});

test.each([
  ["two steps", [echo("a", {}, ["b"]), echo("b", {}, ["a"])], ["a -> b -> a"]],
  [
    "references and conditions",
    [
      echo("a", { x: ref("steps.c.output") }),
      echo("b", {}, [{ step: "s", when: "steps.a.output.ok" }]),
      echo("c", { x: ref("steps.b.output") }),
      echo("s"),
    ],
    ["a -> b -> c -> a"],
  ],
  [
    "a compensation that needs what comes later",
    [{ ...echo("a"), compensation: { tool: "echo", arguments: { x: ref("steps.b.output") } } }, echo("b", {}, ["a"])],
    ["a -> b -> a"],
  ],
])("a cycle of %s is shown", (_, steps, cycles) => {
  expect(refusals(() => compileGraph(graphOf({ steps })))).toEqual(
    cycles.map((cycle) => `steps[0]: steps wait for each other: ${cycle}`),
  );
});

test("a long cycle is shown in short", () => {
  const steps = Array.from({ length: 500 }, (_, i) => echo(`s${i}`, {}, [`s${(i + 1) % 500}`]));
  const [problem = ""] = refusals(() => compileGraph(graphOf({ steps })));
  expect(problem).toMatch(/^steps\[0\]: steps wait for each other: s0 -> s499 -> .* -> … -> s0$/);
  expect(problem.length).toBeLessThan(300);
});

/** Graphs without cycles: a step refers to, or has edges from, steps with smaller numbers; then they are shuffled. */
const dag = fc
  .array(fc.record({ after: fc.array(fc.nat(), { maxLength: 4 }), refs: fc.array(fc.nat(), { maxLength: 4 }) }), {
    minLength: 1,
    maxLength: 40,
  })
  .chain((drafts) => {
    const steps = drafts.map(({ after, refs }, index) => {
      const earlier = (numbers: readonly number[]) => (index === 0 ? [] : numbers.map((n) => `s${n % index}`));
      return echo(`s${index}`, { refs: earlier(refs).map((name) => ref(`steps.${name}.output`)) }, earlier(after));
    });
    return fc.shuffledSubarray(steps, { minLength: steps.length });
  });

test("graphs without cycles compile, and each step comes after those that it waits for", () => {
  fc.assert(
    fc.property(dag, (steps) => {
      const graph = graphOf({ steps });
      const plan = compileGraph(graph);
      expect(plan.nodes.map(({ name }) => name).sort()).toEqual(graph.steps.map(({ name }) => name).sort());
      for (const node of plan.nodes) {
        expect(plan.nodes[node.position]).toBe(node);
        expect(plan.byName.get(node.name)).toBe(node);
        expect(node.waitsFor.every((before) => before < node.position)).toBe(true);
        for (const before of node.waitsFor) expect(plan.nodes[before]?.next).toContain(node.position);
        expect(node.next.every((later) => plan.nodes[later]?.waitsFor.includes(node.position))).toBe(true);
        expect(node.edges.every(({ from }) => node.waitsFor.includes(from))).toBe(true);
        expect(node.edges.length > 0).toBe(node.waitsFor.length > 0);
      }
      expect(plan.finals).toEqual(plan.nodes.filter(({ next }) => next.length === 0));
    }),
  );
});

test("steps in a good order keep it", () => {
  fc.assert(
    fc.property(dag, (steps) => {
      const once = compileGraph(graphOf({ steps }));
      const again = compileGraph({ ...once.graph, steps: once.nodes.map(({ step }) => step) });
      expect(again.nodes.map(({ name }) => name)).toEqual(once.nodes.map(({ name }) => name));
    }),
  );
});

test("an edge that closes a circle is always found", () => {
  fc.assert(
    fc.property(dag, fc.nat(), (steps, at) => {
      const graph = graphOf({ steps });
      const plan = compileGraph(graph);
      const pairs = plan.nodes.flatMap((node) => node.waitsFor.map((before) => [before, node.position] as const));
      fc.pre(pairs.length > 0);
      const [from, to] = pairs[at % pairs.length] ?? [0, 0];
      const broken = graph.steps.map((step) =>
        step.name === plan.nodes[from]?.name
          ? { ...step, after: [...step.after, { step: plan.nodes[to]?.name ?? "", when: "" }] }
          : step,
      );
      expect(refusals(() => compileGraph({ ...graph, steps: broken })).join()).toContain("steps wait for each other");
    }),
  );
});
