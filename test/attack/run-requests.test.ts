import { join } from "node:path";
import { create, fromJson, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import {
  RunChange,
  RunChangedSchema,
  StepChange,
  StepChangedSchema,
  StepKind,
} from "@cadre/gen/cadre/events/v1/run_pb";
import { RunRequestSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import { type ToolCalled, ToolCalledSchema, ToolCallOutcome } from "@cadre/gen/cadre/events/v1/tool_pb";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { type Cadre, createCadre, jsonOf, RunState, reasonName, type SignedRunRequest, valueOf } from "@cadre/sdk";
import { createNoopMeter, trace } from "@opentelemetry/api";
import pg from "pg";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createRunRequestTokens } from "../../services/credentials/app/run-request-token.ts";
import { consumeRepeatable } from "../../services/runtime/bus/consumer/consume-repeatable.ts";
import { envelopeHeader } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent, EventBus } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { agentRuns, agentRunsRequested, agentSteps, agentTools } from "../../services/runtime/bus/topics.ts";
import { readKeyFile } from "../../services/runtime/identity/key-file.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { followRuns, requestEvent, type ToldRuns } from "../support/run-requests.ts";
import { until } from "../support/settled.ts";
import { codec } from "../support/turn-facts.ts";

// The asynchronous door: what asks for a run through the bus is started once if
// it was signed for, and is a dead letter with its reason if not.

let database: TestDatabase;
let server: RunningCadre;
let cadre: Cadre;
let bus: EventBus;
let told: ToldRuns;

beforeAll(async () => {
  database = await createTestDatabase();
  server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url, CADRE_STEP_FACTS: "true" } });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  bus = await openPostgresEventBus({ url: database.url, log });
  told = followRuns(bus, "test.told");
}, 90_000);
afterAll(async () => {
  await bus.close();
  await server.dispose();
  await database.drop();
});

const log = pino({ level: "silent" });
const graph = fromJson(GraphSchema, {
  name: "say",
  steps: [{ name: "say", tool: { tool: "echo", arguments: { text: { $ref: "input" } } } }],
  output: { $ref: "steps.say.output.text" },
});
const say = { graph, input: "hello" };

async function publish(said: Parameters<typeof requestEvent>[0], times = 1): Promise<BusEvent> {
  const event = await requestEvent(said);
  await bus.publish(Array.from({ length: times }, () => event));
  return event;
}

/** Resolves with why an event became a dead letter, and how often it was tried. */
async function refusalOf(event: BusEvent): Promise<{ readonly reason: string; readonly attempts: number }> {
  const eventId = event.headers[envelopeHeader.eventId];
  const list = (unattributed: boolean) => Array.fromAsync(cadre.deadLetters.list({ topic: event.topic, unattributed }));
  const find = async () => [...(await list(false)), ...(await list(true))].find((letter) => letter.eventId === eventId);
  await until(async () => (await find()) !== undefined);
  const letter = await find();
  return { reason: letter === undefined ? "" : reasonName(letter.reason), attempts: letter?.attempts ?? 0 };
}

/** Resolves when the server has acknowledged every request. */
async function allHandled(): Promise<void> {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    await until(async () => {
      const { rows } = await client.query("select bus.group_lag($1, $2) as lag", [
        "orchestrator.requests",
        agentRunsRequested.name,
      ]);
      return rows[0].lag === "0";
    });
  } finally {
    await client.end();
  }
}

const runsOf = (key: string) => Array.fromAsync(cadre.runs.list({ labels: { "cadre.request": key } }));

test("a signed request is one run, however often it is delivered, and its end is told with its output", async () => {
  const signed = await cadre.runs.signRequest(say);
  const requestId = newId("req");
  await publish({ ...signed, requestId }, 3);
  const fact = await told.ended(requestId);
  expect(fact.change).toBe(RunChange.SUCCEEDED);
  // By somebody who lost the answer: another event, the same request. Before the first was handled it could be the
  // one whose id the run's facts have: it is in another partition.
  await publish(signed);
  expect(fact.output === undefined ? undefined : valueOf(fact.output)).toBe("hello");
  await allHandled();
  expect((await runsOf(signed.idempotencyKey)).map(({ runId }) => runId)).toEqual([fact.runId]);
  expect(told.of(requestId).map(({ change }) => change)).toEqual([RunChange.STARTED, RunChange.SUCCEEDED]);
  expect(signed.expiresAt.getTime() - Date.now()).toBeLessThanOrEqual(15 * 60_000);
});

test("what is not signed for its bytes, or for somebody who may, is a dead letter and no run", async () => {
  const secret = readKeyFile(join(server.dataDirectory, "keys", "credentials.key"));
  const { principal } = await cadre.principal();
  const sign = async (tokens: ReturnType<typeof createRunRequestTokens>, signed: SignedRunRequest) => {
    const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", signed.request));
    return { ...signed, token: (await tokens.sign(principal, sha256)).token };
  };
  const signed = () => cadre.runs.signRequest(say);
  const issue = async (role: "member" | "admin", scopes: readonly string[]) => {
    const issued = await cadre.keys.issue({ name: "door", role, scopes });
    return { ...issued, cadre: createCadre({ baseUrl: server.url, apiKey: issued.secret }) };
  };
  const withdrawn = await issue("member", ["runs.*"]);
  const byWithdrawn = await withdrawn.cadre.runs.signRequest(say);
  await cadre.keys.revoke(withdrawn.key.keyId);
  const malformed = new TextEncoder().encode("no request");
  const withoutRun = toBinary(RunRequestSchema, fromJson(RunRequestSchema, { idempotencyKey: "k" }));

  const own = createRunRequestTokens(secret);
  const table: readonly [string, SignedRunRequest, string][] = [
    ["another request's token", { ...(await signed()), token: (await signed()).token }, "UNAUTHENTICATED"],
    ["an API key as its token", { ...(await signed()), token: server.adminKey }, "UNAUTHENTICATED"],
    ["no JWT as its token", { ...(await signed()), token: "x" }, "UNAUTHENTICATED"],
    [
      "a stranger's signature",
      await sign(createRunRequestTokens(new Uint8Array(32)), await signed()),
      "UNAUTHENTICATED",
    ],
    [
      "a token that has ended",
      await sign(
        createRunRequestTokens(secret, () => Date.now() - 17 * 60_000),
        await signed(),
      ),
      "UNAUTHENTICATED",
    ],
    ["the token of a key that is revoked", byWithdrawn, "UNAUTHENTICATED"],
    ["bytes that are no request", await sign(own, { ...(await signed()), request: malformed }), "MALFORMED_MESSAGE"],
    ["a request for no run", await sign(own, { ...(await signed()), request: withoutRun }), "INVALID_ARGUMENT"],
  ];
  // The one that is not refused shows that the secret is the server's.
  const good = await sign(own, await signed());
  const requestId = newId("req");
  const [refused] = await Promise.all([
    Promise.all(table.map(async ([what, said]) => [what, await refusalOf(await publish(said))] as const)),
    publish({ ...good, requestId }),
  ]);
  expect(refused).toEqual(table.map(([what, , reason]) => [what, { reason, attempts: 1 }]));
  expect((await told.ended(requestId)).change).toBe(RunChange.SUCCEEDED);
  for (const [what, { idempotencyKey }] of table) expect(await runsOf(idempotencyKey), what).toEqual([]);
}, 60_000);

test("a request in the name of another org is a dead letter that its org does not see", async () => {
  const signed = await cadre.runs.signRequest(say);
  const event = await publish({ ...signed, orgId: newId("org") });
  expect(await refusalOf(event)).toEqual({ reason: "TENANT_MISMATCH", attempts: 1 });
  expect(await runsOf(signed.idempotencyKey)).toEqual([]);
});

test("a token of a request opens no door, and only who may start runs is signed for", async () => {
  const { token } = await cadre.runs.signRequest(say);
  await expect(createCadre({ baseUrl: server.url, apiKey: token }).principal()).rejects.toMatchObject({
    reason: "UNAUTHENTICATED",
  });
  const { secret } = await cadre.keys.issue({ name: "reader", role: "member", scopes: ["runs.read"] });
  await expect(createCadre({ baseUrl: server.url, apiKey: secret }).runs.signRequest(say)).rejects.toMatchObject({
    reason: "SCOPE_MISSING",
  });
});

test("a dead letter shows neither the token nor what was asked for", async () => {
  const signed = await cadre.runs.signRequest(say);
  const event = await publish({ ...signed, token: server.adminKey });
  await refusalOf(event);
  const letters = await Array.fromAsync(cadre.deadLetters.list({ topic: agentRunsRequested.name }));
  const letter = letters.find(({ eventId }) => eventId === event.headers[envelopeHeader.eventId]);
  const shown = JSON.stringify(jsonOf(await cadre.deadLetters.get(letter?.deadLetterId ?? "")));
  expect(shown).toContain("metadata");
  expect(shown).not.toContain(server.adminKey);
  expect(shown).not.toContain(Buffer.from(signed.request).toString("base64").slice(0, 40));
});

test("a consumer of agent.tools.v1 gets each call of a run once, and of what is forged nothing", async () => {
  const calls: ToolCalled[] = [];
  consumeRepeatable({
    bus,
    codec,
    topic: agentTools,
    group: "test.tools",
    handle: async ({ fact }) => void calls.push(fact),
    log,
    tracer: trace.getTracer("test"),
    meter: createNoopMeter(),
  });
  const run = await cadre.runs.start(say);
  await run.result();
  const callsOf = () => calls.filter(({ runId }) => runId === run.runId);
  await until(() => callsOf().length > 0);
  expect(callsOf()).toMatchObject([
    { tool: "echo", outcome: ToolCallOutcome.SUCCEEDED, attempt: 1, sessionId: "", reason: 0 },
  ]);
  const [real] = callsOf();
  if (real?.metadata === undefined) throw new Error("no call");

  // Somebody who may write to the topic puts a result there, in the name of another org.
  const { orgId } = (await cadre.principal()).principal;
  const forged = { ...real, metadata: { ...real.metadata, eventId: newId("evt") }, outcome: ToolCallOutcome.FAILED };
  const event = await codec.encode(agentTools, forged, { orgId });
  const foreign = newId("org");
  const headers = { ...event.headers, [envelopeHeader.orgId]: foreign };
  const renamed = { ...event, key: event.key.replace(orgId, foreign), headers };
  await bus.publish([renamed]);
  expect(await refusalOf(renamed)).toEqual({ reason: "TENANT_MISMATCH", attempts: 1 });
  expect(callsOf()).toHaveLength(1);
});

test("results that somebody forged for a run change nothing of it", async () => {
  const steps: JsonObject[] = [{ name: "wait", signal: { signal: "go" } }];
  const run = await cadre.runs.start({ graph: fromJson(GraphSchema, { name: "waits", steps }) });
  const { orgId } = (await cadre.principal()).principal;
  const metadata = () => ({ eventId: newId("evt"), seq: 7n, at: timestampNow(), orgId });
  const { runId } = run;
  const stepId = newId("stp");
  const attempt = 1;
  await bus.publish([
    await codec.encode(
      agentTools,
      create(ToolCalledSchema, {
        ...{ metadata: metadata(), runId, stepId, attempt },
        ...{ tool: "echo", outcome: ToolCallOutcome.SUCCEEDED },
      }),
      { orgId },
    ),
    await codec.encode(
      agentSteps,
      create(StepChangedSchema, {
        ...{ metadata: metadata(), runId, stepId, attempt },
        ...{ name: "wait", kind: StepKind.SIGNAL, change: StepChange.SUCCEEDED },
      }),
      { orgId },
    ),
    await codec.encode(
      agentRuns,
      create(RunChangedSchema, { metadata: metadata(), runId, change: RunChange.CANCELLED }),
      { orgId },
    ),
  ]);
  // Whoever follows the topic has read it, and the run has not.
  await until(() => told.of("").some((fact) => fact.runId === runId));
  expect((await run.refresh()).state).toBe(RunState.WAITING);
  await cadre.runs.signal(runId, "go", { by: "us" });
  expect(await run.result()).toEqual({ wait: { by: "us" } });
  expect((await run.refresh()).state).toBe(RunState.SUCCEEDED);
});
