import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { type RunChanged, StepChange, type StepChanged, StepKind } from "@cadre/gen/cadre/events/v1/run_pb";
import { type ToolCalled, ToolCallOutcome } from "@cadre/gen/cadre/events/v1/tool_pb";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FakeTools } from "../../../test/support/fake-tools.ts";
import {
  endsTurn,
  migrateOrchestrator,
  newSession,
  readEvents,
  startTestOrchestrator,
  type TestOrchestrator,
} from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { createEventCodec } from "../../runtime/bus/envelope.ts";
import type { BusEvent } from "../../runtime/bus/event-bus.ts";
import { createLocalSchemaIds } from "../../runtime/bus/schema-ids.ts";
import { agentRuns, agentSteps, agentTools } from "../../runtime/bus/topics.ts";
import { createJournalRelaySource } from "./journal-relay-source.ts";

let database: TestDatabase;
let world: TestOrchestrator;
const codec = createEventCodec(createLocalSchemaIds());

beforeAll(async () => {
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
  const tools = new FakeTools()
    .addPure("echo", (call) => call.arguments)
    .add("failing", () => Promise.reject(new Error("no")), []);
  world = await startTestOrchestrator({ databaseUrl: database.url, tools });
});
afterAll(async () => {
  await world.stop();
  await database.drop();
});

interface Facts {
  readonly steps: StepChanged[];
  readonly tools: ToolCalled[];
  readonly runs: RunChanged[];
}

/** Reads the facts that the journal states since the last look, in batches, each by a relay that remembers nothing. */
async function readFacts(limit: number): Promise<Facts> {
  const events: BusEvent[] = [];
  for (let more = true; more; ) {
    const source = createJournalRelaySource({
      database: world.database,
      codec,
      writer: () => world.orchestrator.engine.status.writer,
      onLag: () => undefined,
      withSteps: true,
    });
    const batch = await source.read(limit);
    if (batch === undefined) break;
    events.push(...batch.events);
    await source.markRelayed(batch.position);
    more = batch.more;
  }
  const of = (topic: { readonly name: string }) => events.filter((event) => event.topic === topic.name);
  return {
    steps: await Promise.all(of(agentSteps).map((event) => codec.decode(agentSteps, event))),
    tools: await Promise.all(of(agentTools).map((event) => codec.decode(agentTools, event))),
    runs: await Promise.all(of(agentRuns).map((event) => codec.decode(agentRuns, event))),
  };
}

/** Runs a graph to its end. */
async function run(steps: readonly JsonObject[], labels: Record<string, string> = {}): Promise<string> {
  const graph = fromJson(GraphSchema, { name: "sample", steps: [...steps] });
  const { run } = await world.runs.startRun({
    definition: { case: "graph", value: graph },
    wait: { seconds: 30n },
    labels,
  });
  return run?.runId ?? "";
}

const echo = (name: string, more: JsonObject = {}): JsonObject => ({
  name,
  tool: { tool: "echo", arguments: { text: name } },
  ...more,
});

test.each([500, 1])("a graph's steps and calls are stated, read %d entries at a time", async (limit) => {
  const runId = await run([
    echo("first"),
    { name: "pause", timer: { duration: "0s" }, after: [{ step: "first" }] },
    echo("never", { after: [{ step: "first", when: "false" }] }),
    {
      name: "each",
      after: [{ step: "pause" }],
      fanOut: { over: ["a"], tool: { tool: "echo", arguments: { text: "b" } } },
    },
    { name: "ask", after: [{ step: "pause" }], model: { prompt: "say hi" } },
    {
      name: "broken",
      after: [{ step: "each" }, { step: "ask" }],
      tool: { tool: "failing", arguments: {} },
      retry: { maxAttempts: 1 },
    },
  ]);
  const { steps, tools } = await readFacts(limit);
  const { SUCCEEDED, FAILED, SKIPPED } = StepChange;
  const ends = steps
    .filter(({ change }) => change === SUCCEEDED || change === FAILED || change === SKIPPED)
    .map(({ name, index, kind, change, reason }) => [name, index, kind, change, reason]);
  const { TOOL, TIMER, FAN_OUT, MODEL } = StepKind;
  expect(ends).toEqual(
    expect.arrayContaining([
      ["first", undefined, TOOL, SUCCEEDED, 0],
      ["pause", undefined, TIMER, SUCCEEDED, 0],
      ["never", undefined, TOOL, SKIPPED, 0],
      ["each", 0, TOOL, SUCCEEDED, 0],
      ["each", undefined, FAN_OUT, SUCCEEDED, 0],
      // The call of the model, and the step that it was made for.
      ["ask", undefined, MODEL, SUCCEEDED, 0],
      ["ask", undefined, MODEL, SUCCEEDED, 0],
      ["broken", undefined, TOOL, FAILED, Reason.TOOL_FAILED],
    ]),
  );
  expect(ends).toHaveLength(8);
  expect(new Set(steps.map(({ runId: id }) => id))).toEqual(new Set([runId]));
  expect(tools.map(({ tool, outcome, reason }) => [tool, outcome, reason])).toEqual([
    ["echo", ToolCallOutcome.SUCCEEDED, 0],
    ["echo", ToolCallOutcome.SUCCEEDED, 0],
    ["failing", ToolCallOutcome.FAILED, Reason.TOOL_FAILED],
  ]);
  const called = steps.filter(({ kind, change }) => kind === TOOL && (change === SUCCEEDED || change === FAILED));
  expect(tools.map(({ stepId }) => stepId)).toEqual(called.map(({ stepId }) => stepId));
  // Each fact has an id and a number of its own, and says where it comes from.
  const facts = [...steps, ...tools].map(({ metadata }) => metadata);
  expect(new Set(facts.map((metadata) => metadata?.eventId)).size).toBe(facts.length);
  expect(steps.map(({ metadata }) => metadata?.seq)).toEqual(
    steps.map(({ metadata }) => metadata?.seq).toSorted((one, other) => Number((one ?? 0n) - (other ?? 0n))),
  );
  expect(new Set(facts.map((metadata) => metadata?.traceId))).toEqual(new Set(["0af7651916cd43dd8448eb211c80319c"]));
  expect(facts.every((metadata) => metadata?.requestId.startsWith("req_"))).toBe(true);
});

test.each([500, 1])(
  "a turn's calls are stated with the tool that the model named, read %d entries at a time",
  async (limit) => {
    const sessionId = await newSession(world.sessions);
    const sent = await world.sessions.sendTurn({ sessionId, text: "echo: hello" });
    const turnId = sent.turn?.turnId ?? "";
    await readEvents(world.sessions, sessionId, sent.turn?.afterSeq ?? 0n, endsTurn(turnId));
    const { steps, tools } = await readFacts(limit);
    const { STARTED, SUCCEEDED } = StepChange;
    expect(steps.map(({ kind, change, attempt }) => [kind, change, attempt])).toEqual([
      [StepKind.MODEL, STARTED, 1],
      [StepKind.MODEL, SUCCEEDED, 1],
      [StepKind.TOOL, STARTED, 1],
      [StepKind.TOOL, SUCCEEDED, 1],
      [StepKind.MODEL, STARTED, 1],
      [StepKind.MODEL, SUCCEEDED, 1],
    ]);
    expect(tools).toMatchObject([
      {
        runId: turnId,
        sessionId,
        tool: "echo",
        outcome: ToolCallOutcome.SUCCEEDED,
        stepId: steps[2]?.stepId,
        attempt: 1,
      },
    ]);
  },
);

test("a run states its output with its end if it has the label for that, and no other does", async () => {
  await run([echo("first")], { "cadre.publish": "output" });
  await run([echo("first")]);
  const { runs } = await readFacts(500);
  expect(runs.map(({ output }) => output === undefined)).toEqual([true, false, true, true]);
});
