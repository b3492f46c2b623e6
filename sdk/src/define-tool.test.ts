import { SideEffects } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { defineTool, type JsonObject, type StandardSchema, type ToolCallContext } from "./index.ts";

const context: ToolCallContext = {
  signal: new AbortController().signal,
  idempotencyKey: "key",
  callId: "call_1",
  attempt: 1,
  runId: "",
  traceparent: "",
  print: async () => undefined,
};

test("the handler's types follow from the validators, and what they transform", async () => {
  const tool = defineTool({
    name: "add",
    description: "Adds.",
    input: z.object({
      a: z.number(),
      b: z.number().default(1),
      when: z.iso.datetime().transform((text) => new Date(text)),
    }),
    output: z.object({ sum: z.number() }),
    handler: (args) => {
      expectTypeOf(args).toEqualTypeOf<{ a: number; b: number; when: Date }>();
      return { sum: args.a + args.b + args.when.getTime() };
    },
  });
  expect(await tool.run({ a: 1, when: "1970-01-01T00:00:00Z" }, context)).toEqual({ sum: 2 });
  expect(tool.definition.inputSchema).toMatchObject({ type: "object", required: ["a", "when"] });
  expect(tool.definition.outputSchema).toMatchObject({ properties: { sum: { type: "number" } } });
});

test("a result of another type than declared does not compile", () => {
  const input = z.object({});
  const output = z.object({ sum: z.number() });
  const handler = () => ({ sum: "one" });
  // @ts-expect-error a text is no number
  defineTool({ name: "wrong", description: "Wrong.", input, output, handler });
});

test("defaults are the careful ones", () => {
  const { definition, timeoutMs } = defineTool({
    name: "plain",
    description: "Plain.",
    inputSchema: { type: "object" },
    handler: (args) => {
      expectTypeOf(args).toEqualTypeOf<JsonObject>();
    },
  });
  expect(definition.sideEffects).toBe(SideEffects.EFFECTFUL);
  expect({ timeoutMs, timeout: definition.timeout?.seconds }).toEqual({ timeoutMs: 30_000, timeout: 30n });
});

/** A validator of a library, in as far as it follows the standards. */
function validator(more: object): StandardSchema<{ n: number }> {
  const standard = { version: 1, vendor: "acme", validate: (value: unknown) => ({ value }) };
  return { "~standard": standard, ...more } as unknown as StandardSchema<{ n: number }>;
}

test.each([
  [
    "Standard JSON Schema",
    {
      "~standard": {
        version: 1,
        vendor: "acme",
        validate: () => ({ value: 1 }),
        jsonSchema: { input: () => ({ title: "standard" }) },
      },
    },
    "standard",
  ],
  ["a method toJSONSchema", { toJSONSchema: () => ({ title: "zod's" }) }, "zod's"],
  ["a method toJsonSchema", { toJsonSchema: () => ({ title: "arktype's" }) }, "arktype's"],
])("JSON Schema comes by %s", (_, more, title) => {
  const tool = defineTool({ name: "t", description: "T.", input: validator(more), handler: () => null });
  expect(tool.definition.inputSchema).toEqual({ title });
});

test("a validator that gives no JSON Schema wants it stated", () => {
  const input = validator({});
  expect(() => defineTool({ name: "t", description: "T.", input, handler: () => null })).toThrow(/inputSchema/);
  const tool = defineTool({
    name: "t",
    description: "T.",
    input,
    inputSchema: { type: "object" },
    handler: () => null,
  });
  expect(tool.definition.inputSchema).toEqual({ type: "object" });
});

test("what has no JSON is a failure of the tool", async () => {
  const tool = defineTool({ name: "t", description: "T.", inputSchema: {}, handler: () => ({ big: 1n }) });
  await expect(tool.run({}, context)).rejects.toMatchObject({ name: "ToolFailure", reason: "TOOL_RESULT_INVALID" });
  const silent = defineTool({ name: "t", description: "T.", inputSchema: {}, handler: () => undefined });
  expect(await silent.run({}, context)).toBeNull();
});
