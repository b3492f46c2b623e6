import { create, toBinary } from "@bufbuild/protobuf";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { EntrySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { AgentDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { PinnedToolSchema } from "@cadre/gen/cadre/tools/v1/tool_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { newId } from "../../runtime/ids/id.ts";
import type { Entry, EntryBody } from "../domain/entry.ts";
import type { Json, JsonObject } from "../domain/json.ts";
import { decodeEntry, encodeEntry, entryKind } from "./entry-codec.ts";
import { fromProtoTool, toPinnedAgent } from "./proto-values.ts";

const agent = toPinnedAgent(
  newId("agt"),
  3,
  `sha256:${"a".repeat(64)}`,
  create(AgentDefinitionSchema, {
    name: "helper",
    model: "scripted",
    tools: ["*"],
    limits: { maxToolRounds: 2, maxTokens: 5n, maxDuration: { seconds: 1n } },
  }),
);
const tool = fromProtoTool(
  create(PinnedToolSchema, {
    toolId: newId("tool"),
    digest: `sha256:${"b".repeat(64)}`,
    definition: { name: "echo", description: "Echoes.", inputSchema: { type: "object" } },
  }),
);
const principal = toBinary(PrincipalSchema, create(PrincipalSchema, { subject: "key", orgId: newId("org") }));

// What a double in Protobuf's Value cannot be, and a key that objects take for their prototype, no JSON text gives us.
const json = fc
  .jsonValue({ maxDepth: 4 })
  .map((value) => JSON.parse(JSON.stringify(value).replaceAll("-0", "0").replaceAll("__proto__", "proto")) as Json);
const object = fc
  .dictionary(fc.string(), json, { noNullPrototype: true })
  .map((value) => Object.fromEntries(Object.entries(value).filter(([key]) => key !== "__proto__")) as JsonObject);
const error = fc.record({ reason: fc.constantFrom("MODEL_FAILED", "TOOL_FAILED", "CANCELLED"), message: fc.string() });
const tools = fc.array(fc.string());
const step = { stepId: fc.constant(newId("stp")), attempt: fc.nat({ max: 9 }) };
const record = <T extends EntryBody["type"]>(type: T, fields: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record({ type: fc.constant(type), ...fields }) as unknown as fc.Arbitrary<EntryBody>;

const bodies: fc.Arbitrary<EntryBody> = fc.oneof(
  record("run.accepted", {
    sessionId: fc.constant(newId("ses")),
    principal: fc.constant(principal),
    requestId: fc.constant(newId("req")),
    traceparent: fc.string(),
    agent: fc.constant(agent),
    text: fc.string(),
    answerSchema: fc.option(object, { nil: undefined }),
  }),
  record("run.started", {
    tools: fc.constant([tool]),
    contextTokens: fc.nat(),
    caps: fc.record({ toolRounds: fc.nat(), tokens: fc.nat(), durationMs: fc.nat() }),
  }),
  record("step.started", {
    ...step,
    plan: fc.oneof(
      fc.record({ kind: fc.constant("model"), round: fc.nat(), turnsLeftOut: fc.nat() }),
      fc.record({ kind: fc.constant("tool"), round: fc.nat(), index: fc.nat() }),
    ),
  }),
  record("step.succeeded", {
    ...step,
    result: fc.oneof(
      fc.record({
        kind: fc.constant("model"),
        text: fc.string(),
        toolCalls: fc.array(
          fc.record({ callId: fc.string(), tool: fc.string(), arguments: object, malformed: fc.string() }),
        ),
        inputTokens: fc.nat(),
        outputTokens: fc.nat(),
      }),
      fc.record({
        kind: fc.constant("tool"),
        outcome: fc.oneof(
          fc.record({ type: fc.constant("value"), value: json }),
          fc.record({ type: fc.constant("error"), error }),
        ),
      }),
    ),
  }),
  record("step.failed", { ...step, error, retryable: fc.boolean() }),
  record("answer.rejected", { stepId: fc.string(), problems: fc.string() }),
  record("cancel.requested", {
    cause: fc.constantFrom("caller", "interrupted", "deleted"),
    requestId: fc.string(),
  }),
  record("run.ended", {
    started: fc.boolean(),
    end: fc.oneof(
      fc.record({ state: fc.constant("succeeded"), answer: fc.string() }),
      fc.record({ state: fc.constant("failed"), error, toolsMayStillRun: tools }),
      fc.record({ state: fc.constant("cancelled"), toolsMayStillRun: tools }),
    ),
  }),
);

test("every entry survives the journal", () => {
  fc.assert(
    fc.property(bodies, fc.integer({ min: 0, max: 4e12 }), (body, atMs) => {
      const entry: Entry = { atMs, body };
      expect(decodeEntry(encodeEntry(entry))).toEqual(entry);
    }),
    { numRuns: 500 },
  );
});

test("the stored kind of an entry is the number of its field in the contract", () => {
  const numbers = EntrySchema.oneofs[0]?.fields.map((field) => [field.name.replace("_", "."), field.number]);
  expect(Object.fromEntries(numbers ?? [])).toEqual(entryKind);
});

test("bytes that are no entry are data loss", () => {
  for (const bytes of [
    Uint8Array.of(),
    Uint8Array.of(0xff, 0xff),
    encodeEntry({ atMs: 1, body: { type: "answer.rejected", stepId: "", problems: "" } }).subarray(0, 3),
  ]) {
    expect(() => decodeEntry(bytes)).toThrow(/journal of the run/);
  }
});
