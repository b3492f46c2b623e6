import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { EntrySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { AgentDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { PinnedToolSchema } from "@cadre/gen/cadre/tools/v1/tool_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { newId } from "../../runtime/ids/id.ts";
import type { Entry, EntryBody } from "../domain/entry.ts";
import type { Json, JsonObject } from "../domain/json.ts";
import { decodeEntry, encodeEntry, entryKind } from "./entry-codec.ts";
import { fromProtoGraph } from "./graph-codec.ts";
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
const place = fc.record({
  name: fc.string(),
  index: fc.option(fc.nat({ max: 255 }), { nil: undefined }),
  compensation: fc.boolean(),
});
const within = fc.option(place, { nil: undefined });
const time = fc.integer({ min: 0, max: 4e12 });
const expiry = fc.option(time, { nil: undefined });
const receipt = fc.constantFrom("not-started", "partial", "done", "may-still-run");
const payload = fc.oneof(
  fc.record({ value: json, blob: fc.constant(undefined) }),
  fc.record({
    value: fc.constant(undefined),
    blob: fc.record({ sha256: fc.uint8Array({ minLength: 32, maxLength: 32 }), size: fc.nat() }),
  }),
);
const graph = fromProtoGraph(
  create(GraphSchema, {
    name: "two",
    steps: [
      { name: "a", task: { case: "tool", value: { tool: "echo", arguments: { text: { $ref: "input" } } } } },
      { name: "b", after: [{ step: "a", when: "output.ok" }], task: { case: "signal", value: { signal: "go" } } },
    ],
  }),
);
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
    leavesOut: fc.array(fc.constant(newId("run"))),
  }),
  record("run.started", {
    tools: fc.constant([tool]),
    contextTokens: fc.nat(),
    caps: fc.record({ toolRounds: fc.nat(), tokens: fc.nat(), durationMs: fc.nat() }),
  }),
  record("step.started", {
    ...step,
    plan: fc.oneof(
      fc.record({ kind: fc.constant("model"), round: fc.nat(), turnsLeftOut: fc.nat(), within }),
      fc.record({ kind: fc.constant("tool"), round: fc.nat(), index: fc.nat(), within }),
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
    cause: fc.constantFrom("caller", "interrupted", "deleted", "rolled-back", "parent", "budget"),
    requestId: fc.string(),
    reason: fc.string(),
    compensate: fc.boolean(),
  }),
  record("run.ended", {
    started: fc.boolean(),
    end: fc.oneof(
      fc.record({ state: fc.constant("succeeded"), answer: fc.string() }),
      fc.record({ state: fc.constant("failed"), error, toolsMayStillRun: tools }),
      fc.record({ state: fc.constant("cancelled"), toolsMayStillRun: tools }),
    ),
  }),
  record("graph.accepted", {
    principal: fc.constant(principal),
    requestId: fc.string(),
    traceparent: fc.string(),
    agent: fc.constantFrom(undefined, agent),
    graph: fc.constant(graph),
    digest: fc.string(),
    input: payload,
    labels: fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), fc.string(), { noNullPrototype: true }),
    maxSteps: fc.nat(),
    maxDurationMs: fc.nat(),
    parent: fc.constantFrom(undefined, { runId: newId("run"), stepId: newId("stp") }),
    depth: fc.nat({ max: 8 }),
    forkedFrom: fc.constantFrom(undefined, { runId: newId("run"), checkpoint: 3 }),
    scheduleId: fc.constantFrom(undefined, newId("sch")),
  }),
  record("graph.started", {
    tools: fc.constant([tool]),
    agents: fc.constant([agent]),
    graphs: fc.constantFrom(new Map(), new Map([["two", graph]])),
    models: fc.constantFrom(new Map(), new Map([["scripted", 8_192]])),
  }),
  record("graph.step.started", { ...step, place }),
  record("graph.step.succeeded", {
    ...step,
    place,
    output: fc.option(payload, { nil: undefined }),
    inputTokens: fc.nat(),
    outputTokens: fc.nat(),
    signalSeq: fc.nat(),
    carried: fc.boolean(),
  }),
  record("graph.step.failed", {
    ...step,
    place,
    error,
    retryAtMs: expiry,
    receipt: fc.option(receipt, { nil: undefined }),
  }),
  record("step.waiting", {
    stepId: fc.string(),
    place,
    wait: fc.oneof(
      fc.record({ for: fc.constant("timer"), dueAtMs: time }),
      fc.record({ for: fc.constant("signal"), signal: fc.string(), expiresAtMs: expiry }),
      fc.record({ for: fc.constant("approval"), prompt: fc.string(), expiresAtMs: expiry }),
      fc.record({ for: fc.constant("child"), runId: fc.constant(newId("run")) }),
    ),
  }),
  record("step.skipped", { place }),
  record("step.cancelled", { stepId: fc.string(), place, receipt }),
  record("signal.received", { signal: fc.string(), payload, by: fc.string(), requestId: fc.string() }),
  record("approval.decided", {
    place,
    approved: fc.boolean(),
    by: fc.string(),
    reason: fc.string(),
    requestId: fc.string(),
  }),
  record("run.parked", {
    parked: fc.record({
      reason: fc.constantFrom("DATA_LOSS", "NON_DETERMINISTIC"),
      message: fc.string(),
      diff: fc.array(fc.string()),
    }),
  }),
  record("run.resumed", { principal: fc.constant(principal), requestId: fc.string() }),
  record("run.failing", { step: fc.string(), error }),
  record("graph.ended", {
    end: fc.oneof(
      fc.record({ state: fc.constant("succeeded"), output: payload }),
      fc.record({ state: fc.constant("failed"), error, step: fc.string() }),
      fc.record({ state: fc.constant("cancelled") }),
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
  fc.assert(
    fc.property(bodies, (body) => {
      const { case: name } = fromBinary(EntrySchema, encodeEntry({ atMs: 1, body })).body;
      const field = EntrySchema.oneofs[0]?.fields.find(({ localName }) => localName === name);
      expect(entryKind[body.type]).toBe(field?.number);
    }),
  );
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
