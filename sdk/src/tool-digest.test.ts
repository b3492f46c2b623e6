import { readFileSync } from "node:fs";
import type { JsonObject } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { SideEffects } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { expect, test } from "vitest";
import { defineTool, toolDigest } from "./index.ts";

interface Vector {
  readonly case: string;
  readonly definition: {
    readonly name: string;
    readonly description: string;
    readonly input_schema: JsonObject;
    readonly output_schema?: JsonObject;
    readonly side_effects: "NONE" | "IDEMPOTENT" | "EFFECTFUL";
    readonly timeout_ms: number;
  };
  readonly digest: string;
}

const vectors = JSON.parse(
  readFileSync(new URL("../../test/vectors/tool-digest.json", import.meta.url), "utf8"),
) as readonly Vector[];

test("there are vectors", () => expect(vectors.length).toBeGreaterThan(5));

test.each(vectors)("the digest of $case is the server's", async ({ definition, digest }) => {
  const { name, description, input_schema, output_schema, side_effects, timeout_ms } = definition;
  const init = {
    name,
    description,
    inputSchema: input_schema,
    ...(output_schema === undefined ? {} : { outputSchema: output_schema }),
    sideEffects: SideEffects[side_effects],
    timeout: durationFromMs(timeout_ms),
  };
  expect(await toolDigest(init)).toBe(digest);
});

test.each(vectors)("defineTool makes a definition with the digest of $case", async ({ definition, digest }) => {
  const { name, description, input_schema, output_schema, side_effects, timeout_ms } = definition;
  const tool = defineTool({
    name,
    description,
    inputSchema: input_schema,
    ...(output_schema === undefined ? {} : { outputSchema: output_schema }),
    sideEffects: side_effects.toLowerCase() as "none" | "idempotent" | "effectful",
    timeoutMs: timeout_ms,
    handler: () => null,
  });
  expect(await toolDigest(tool)).toBe(digest);
});

test("what a definition leaves out has the contract's defaults, and a timeout is rounded up", async () => {
  const base = { name: "a_tool", description: "A tool.", inputSchema: { type: "object" } };
  const plain = await toolDigest({ ...base, sideEffects: SideEffects.UNSPECIFIED });
  const said = { sideEffects: SideEffects.EFFECTFUL, timeout: durationFromMs(30_000) };
  expect(await toolDigest({ ...base, ...said })).toBe(plain);
  const above = { seconds: 29n, nanos: 999_000_001 };
  expect(await toolDigest({ ...base, ...said, timeout: { ...said.timeout, ...above } })).toBe(plain);
});
