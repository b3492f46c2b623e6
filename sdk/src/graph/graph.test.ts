import { create, toJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import fc from "fast-check";
import { expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { checkGraph } from "../../../services/orchestrator/domain/graph/check-graph.ts";
import { fromProtoGraph } from "../../../services/orchestrator/store/graph-codec.ts";
import { toolsOf } from "../../../test/support/graphs.ts";
import { defineTool } from "../define-tool.ts";
import type { RunGraph } from "../runs/run-definition.ts";
import { graph, type ItemTasks } from "./graph.ts";
import type { Reference } from "./reference.ts";
import type { ItemContext } from "./step-options.ts";

const lookup = defineTool({
  name: "lookup",
  description: "Looks something up.",
  input: z.object({ q: z.string(), limit: z.number().optional() }),
  output: z.object({ title: z.string(), items: z.array(z.object({ id: z.string(), price: z.number() })) }),
  handler: () => ({ title: "", items: [] }),
});

const tool = toolsOf({
  lookup: {
    inputSchema: lookup.definition.inputSchema ?? {},
    outputSchema: lookup.definition.outputSchema,
  },
  mail_send: { inputSchema: {}, outputSchema: undefined },
});

const begun = graph("greet", { input: z.object({ name: z.string(), tags: z.array(z.string()) }) }).tool("fetch", {
  tool: lookup,
  arguments: ({ input }) => ({ q: input.name }),
});

function json(init: RunGraph<never, unknown>): Record<string, unknown> {
  return toJson(GraphSchema, create(GraphSchema, init as never), { useProtoFieldName: true }) as never;
}

function check(init: RunGraph<never, unknown>): void {
  checkGraph(fromProtoGraph(create(GraphSchema, init as never)), { tool });
}

const whole = begun
  .approval("ok", { prompt: ({ fetch }) => fetch.title, continueOnRefusal: true, expiresAfterMs: 60_000 })
  .tool("send", {
    tool: "mail_send",
    arguments: ({ fetch, input }) => ({ to: input.name, first: fetch.items[0]?.id }),
    after: ["fetch", { step: "ok", when: "output.approved" }],
    retry: { maxAttempts: 2, reasons: ["TOOL_FAILED"] },
    timeoutMs: 5_000,
    compensation: { tool: lookup, arguments: ({ output }) => ({ q: output.id }) },
  })
  .fanOut(
    "each",
    ({ fetch }) => fetch.items,
    (task) => task.tool({ tool: lookup, arguments: ({ item, index }) => ({ q: item.id, limit: index }) }),
    { concurrency: 4 },
  )
  .model("write", { prompt: ({ each }) => ["Sum up", each[0]?.title], answer: z.object({ text: z.string() }) })
  .agent("talk", { agent: "writer", message: "hello" })
  .timer("wait", { durationMs: 1_000, after: ["talk"] })
  .timer("until", { until: ({ wait }) => wait.at })
  .signal("paid", { signal: "paid", payload: z.object({ amount: z.number() }) })
  .childRun("child", { run: "helper", input: ({ paid }) => ({ amount: paid.amount }) })
  .output(({ send, fetch, write, paid }) => ({
    id: send.receipt,
    title: fetch.title,
    text: write.text,
    paid: [paid.amount],
  }));

test("a graph is the message that its steps say", () => {
  expect(json(whole)).toMatchObject({
    name: "greet",
    input_schema: { type: "object", required: ["name", "tags"] },
    steps: [
      { name: "fetch", tool: { tool: "lookup", arguments: { q: { $ref: "input.name" } } } },
      {
        name: "ok",
        approval: { prompt: { $ref: "steps.fetch.output.title" }, expires_after: "60s", continue_on_refusal: true },
      },
      {
        name: "send",
        after: [{ step: "fetch" }, { step: "ok", when: "output.approved" }],
        timeout: "5s",
        retry: { max_attempts: 2, reasons: ["TOOL_FAILED"] },
        compensation: { tool: "lookup", arguments: { q: { $ref: "output.id" } } },
      },
      {
        name: "each",
        fan_out: {
          over: { $ref: "steps.fetch.output.items" },
          concurrency: 4,
          tool: { tool: "lookup", arguments: { q: { $ref: "item.id" }, limit: { $ref: "index" } } },
        },
      },
      {
        name: "write",
        model: { prompt: ["Sum up", { $ref: "steps.each.output[0].title" }], answer_schema: { type: "object" } },
      },
      { name: "talk", agent: { agent: "writer", message: "hello" } },
      { name: "wait", timer: { duration: "1s" } },
      { name: "until", timer: { until: { $ref: "steps.wait.output.at" } } },
      { name: "paid", signal: { signal: "paid" } },
      { name: "child", child_run: { agent: "helper", input: { amount: { $ref: "steps.paid.output.amount" } } } },
    ],
    output: {
      id: { $ref: "steps.send.output.receipt" },
      title: { $ref: "steps.fetch.output.title" },
      text: { $ref: "steps.write.output.text" },
      paid: [{ $ref: "steps.paid.output.amount" }],
    },
  });
});

test("the server takes what the builder makes", () => {
  check(whole);
  check(begun.output(({ fetch }) => fetch.items));
  check(begun.build());
});

test("the types of a graph follow from its validators and tools", () => {
  expectTypeOf(whole).toEqualTypeOf<
    RunGraph<{ name: string; tags: string[] }, { id: unknown; title: string; text: string; paid: number[] }>
  >();
  begun.tool("next", {
    tool: lookup,
    arguments: ({ fetch }) => {
      expectTypeOf(fetch.items[0]?.price).toEqualTypeOf<Reference<number> | undefined>();
      return { q: fetch.title, limit: fetch.items[0]?.price };
    },
  });
});

test("what is wrong does not compile", () => {
  const wrong = () => {
    // @ts-expect-error: the tool's result has no such member
    begun.output(({ fetch }) => fetch.titel);
    // @ts-expect-error: no such step
    begun.output(({ fetsh }) => fetsh);
    // @ts-expect-error: a list is no text
    begun.tool("b", { tool: lookup, arguments: ({ fetch }) => ({ q: fetch.items }) });
    // @ts-expect-error: an argument is missing
    begun.tool("b", { tool: lookup, arguments: ({ fetch }) => ({ limit: fetch.items[0]?.price }) });
    // @ts-expect-error: a literal of a wrong type
    begun.tool("b", { tool: lookup, arguments: () => ({ q: 1 }) });
    // @ts-expect-error: the name is taken
    begun.tool("fetch", { tool: lookup, arguments: () => ({ q: "" }) });
    // @ts-expect-error: the name means the run's input
    begun.tool("input", { tool: lookup, arguments: () => ({ q: "" }) });
    // @ts-expect-error: an edge from a step that is not there
    begun.approval("ok", { prompt: "?", after: ["nope"] });
    begun.fanOut(
      "each",
      // @ts-expect-error: what a fan-out walks over is a list
      ({ fetch }) => fetch.title,
      (task) => task.agent({ agent: "a", message: "" }),
    );
    begun.fanOut(
      "each",
      ({ fetch }) => fetch.items,
      // @ts-expect-error: the element has no such member
      (task) => task.agent({ agent: "a", message: ({ item }) => item.name }),
    );
  };
  expect(wrong).toBeTypeOf("function");
});

test("a reference cannot be used as the value that it stands for", () => {
  expect(() => begun.output(({ fetch }) => `title: ${fetch.title}`)).toThrow(
    "steps.fetch.output.title has no value yet: it cannot be part of a text or of a sum",
  );
  expect(() => begun.output(({ fetch }) => ({ ...fetch }))).toThrow("cannot be spread");
  expect(() => begun.output(({ fetch }) => "title" in fetch)).toThrow("has no members yet");
  expect(() => begun.output(({ input }) => ({ $a: input.name }))).toThrow("can hold no reference");
});

test("names that are taken are refused at run time, too", () => {
  for (const name of ["fetch", "input", "item", "index", "output"]) {
    expect(() => begun.approval(name as never, { prompt: "?" })).toThrow(TypeError);
  }
});

test("keys with a $ are data, and members of any name can be named", () => {
  const { output } = json(
    begun
      .tool("any", { tool: "mail_send" })
      .output(({ any }) => ({ data: { $ref: "x" }, odd: any["first name"]?.[0] })),
  );
  expect(output).toEqual({ data: { $literal: { $ref: "x" } }, odd: { $ref: 'steps.any.output["first name"][0]' } });
});

type Context = Readonly<Record<string, Reference<unknown>>>;

/** A builder whose steps have names that are made at run time. */
interface Loose {
  tool(name: string, options: { tool: string; arguments: (context: Context) => object; after: string[] }): Loose;
  model(name: string, options: { prompt: (context: Context) => unknown; after: string[] }): Loose;
  approval(name: string, options: { prompt: (context: Context) => unknown; after: string[] }): Loose;
  timer(name: string, options: { durationMs: number; after: string[] }): Loose;
  fanOut(
    name: string,
    over: () => string[],
    each: (task: ItemTasks<ItemContext<string>>) => unknown,
    options: { after: string[] },
  ): Loose;
  build(): RunGraph<never, unknown>;
}

/** Adds random steps that refer to random earlier ones. */
const plans = fc.array(
  fc.record({
    kind: fc.constantFrom("tool", "model", "approval", "fanOut", "timer"),
    from: fc.nat(),
    edge: fc.boolean(),
  }),
  { maxLength: 20 },
);

test("whatever is built passes the server's check", () => {
  fc.assert(
    fc.property(plans, (plan) => {
      let builder = begun as unknown as Loose;
      plan.forEach(({ kind, from, edge }, index) => {
        const before = index === 0 ? "fetch" : `s${from % index}`;
        const after = edge ? ["fetch"] : [];
        const value = (context: Context) => context[before];
        const name = `s${index}`;
        if (kind === "tool")
          builder = builder.tool(name, { tool: "mail_send", arguments: (c) => ({ x: [value(c)] }), after });
        if (kind === "model") builder = builder.model(name, { prompt: value, after });
        if (kind === "approval") builder = builder.approval(name, { prompt: value, after });
        if (kind === "timer") builder = builder.timer(name, { durationMs: index, after });
        if (kind === "fanOut") {
          builder = builder.fanOut(
            name,
            () => ["a", "b"],
            (task) => task.tool({ tool: lookup, arguments: ({ item }) => ({ q: item }) }),
            { after },
          );
        }
      });
      check(builder.build());
    }),
  );
});
