import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import { type Cadre, createCadre, type DeadLetter, RunState, reasonName } from "@cadre/sdk";
import pg from "pg";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toDeadLetterEvent } from "../../services/runtime/bus/dead-letter-event.ts";
import { eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent, EventBus } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { agentRunsRequested, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { collectEvents } from "../support/collect-events.ts";
import { makeHeaviestEvent } from "../support/heaviest-event.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { relayLagOf } from "../support/relay-lag.ts";
import { runProgram } from "../support/run-program.ts";
import { requestEvent } from "../support/run-requests.ts";
import { until } from "../support/settled.ts";
import { codec } from "../support/turn-facts.ts";

// What strangers and mishaps do to events: too heavy ones, dead letters that
// are put back, or read, by who should not, and a bus that is away for long.

/** Journal entries that may wait for the bus. */
const bound = 80;
let database: TestDatabase;
let server: RunningCadre;
let cadre: Cadre;
let orgId = "";
let bus: EventBus;

beforeAll(async () => {
  database = await createTestDatabase();
  const settings = { CADRE_DATABASE_URL: database.url, CADRE_MAX_UNRELAYED_ENTRIES: String(bound) };
  server = await startCadre({ settings });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey, retry: { maxAttempts: 1 } });
  orgId = (await cadre.principal()).principal.orgId;
  bus = await openPostgresEventBus({ url: database.url, log: pino({ level: "silent" }) });
}, 90_000);
afterAll(async () => {
  await bus.close();
  await server.dispose();
  await database.drop();
});

/** Of letters that no consumer made: far behind what the topics hold. */
let offset = 1_000_000n;

/** Puts an event aside as a consumer does that has no attempt left, and resolves with its letter. */
async function putAside(event: BusEvent, group: string, message = "no"): Promise<DeadLetter> {
  const received = { ...event, partition: 0, offset: offset++, publishedAt: new Date() };
  const failure = { group, attempts: 3, reason: "INTERNAL", message, failedAt: new Date() } as const;
  await bus.publish([toDeadLetterEvent(received, failure)]);
  return letterOf(event);
}

/** The newest letter of an event. */
async function letterOf(event: BusEvent, isIt: (letter: DeadLetter) => boolean = () => true): Promise<DeadLetter> {
  let found: DeadLetter | undefined;
  await until(async () => {
    const letters = await Array.fromAsync(cadre.deadLetters.list({ topic: event.topic }));
    found = letters.find((letter) => letter.eventId === eventIdOf(event) && isIt(letter));
    return found !== undefined;
  });
  return found as DeadLetter;
}

function get(path: string): Promise<Response> {
  return fetch(`${server.url}${path}`, { headers: { authorization: `Bearer ${server.adminKey}` } });
}

test("an event is as heavy as the bus takes, or refused before there is one: not a byte more (E02)", async () => {
  const { event, encodeHeavier } = await makeHeaviestEvent(orgId);
  await expect(encodeHeavier()).rejects.toMatchObject({ reason: "MESSAGE_TOO_LARGE" });
  const read = collectEvents(bus, conversationTurns.name, "test.heavy");
  await bus.publish([event]);
  const received = () => read.events.find((one) => eventIdOf(one) === eventIdOf(event));
  await until(() => received() !== undefined);
  await read.stop();
  expect((await codec.decode(conversationTurns, received() ?? event)).metadata?.orgId).toBe(orgId);
});

test("a request that is put back when its key has lost the right is refused again, and starts nothing (E05)", async () => {
  const issue = async () => {
    const { key, secret } = await cadre.keys.issue({ name: "asks", role: "member", scopes: ["runs.*"] });
    return { keyId: key.keyId, cadre: createCadre({ baseUrl: server.url, apiKey: secret }) };
  };
  const sign = async (by: Cadre) => {
    const signed = await by.runs.signRequest({ agent: "nobody", input: "<script>alert(1)</script>" });
    return { signed, event: await requestEvent(signed) };
  };
  const [kept, lost] = [await issue(), await issue()];
  const [may, mayNot] = [await sign(kept.cadre), await sign(lost.cadre)];
  const group = "orchestrator.requests";
  const letters = [await putAside(may.event, group), await putAside(mayNot.event, group)] as const;
  await cadre.keys.revoke(lost.keyId);
  for (const { deadLetterId } of letters) await cadre.deadLetters.requeue(deadLetterId);
  const again = (event: BusEvent, put: DeadLetter) =>
    letterOf(event, ({ deadLetterId }) => deadLetterId !== put.deadLetterId);
  // Who still may is heard, and told that there is no such agent; who may not is not.
  expect(reasonName((await again(may.event, letters[0])).reason)).toBe("AGENT_NOT_FOUND");
  const refused = await again(mayNot.event, letters[1]);
  expect([reasonName(refused.reason), refused.attempts]).toEqual(["UNAUTHENTICATED", 1]);
  expect(await Array.fromAsync(cadre.runs.list({ labels: { "cadre.request": mayNot.signed.idempotencyKey } }))).toEqual(
    [],
  );
});

test("what a letter holds is masked, and is text to whoever reads it, not markup and no orders to a terminal (E05)", async () => {
  const markup = "<script>alert(1)</script>";
  const terminal = "\u001b]0;owned\u0007\u001b[2J";
  const signed = await cadre.runs.signRequest({ agent: "nobody", input: markup });
  const event = await requestEvent(signed);
  const hostile = {
    ...event,
    key: `${event.key}${markup}`,
    headers: { ...event.headers, authorization: `Bearer ${server.adminKey}`, note: `${markup}${terminal}` },
  };
  const { deadLetterId } = await putAside(hostile, `g${markup}`, `${markup} ${server.adminKey} ${terminal}`);
  const answer = await get(`/v1/dead-letters/${deadLetterId}`);
  const body = await answer.text();
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toMatch(/^application\/json/);
  expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
  for (const hidden of [server.adminKey, signed.token, Buffer.from(signed.request).toString("base64")]) {
    expect(body).not.toContain(hidden);
  }
  const told = JSON.parse(body);
  expect(told.dead_letter.message).toContain(markup);
  expect(told.headers.authorization).toBe("[redacted]");
  expect(told.value).toHaveProperty("metadata");
  expect(told.value).not.toHaveProperty("token");

  const program = ["cli/bin/cadre.js", "events", "dead-letters"];
  const access = ["--url", server.url, "--api-key", server.adminKey];
  for (const verb of [["show", deadLetterId], ["list"]]) {
    const shown = await runProgram(process.execPath, [...program, ...verb, ...access]);
    expect(shown.code, shown.stderr).toBe(0);
    expect(shown.stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
    expect(shown.stdout).not.toContain(server.adminKey);
  }
});

test("no topic is named by a caller: what is none is refused as it stands (E08)", async () => {
  const names = [
    "..",
    "../agent.runs.v1",
    "a".repeat(300),
    `${newId("org")}:agent.runs.v1`,
    "agent.runs.v1\u0000",
    "*",
  ];
  for (const name of names) {
    const answer = await get(`/v1/dead-letters?topic=${encodeURIComponent(name)}`);
    expect([name, answer.status, (await answer.json()).error.status]).toEqual([name, 400, "invalid_argument"]);
  }
  expect((await get(`/v1/dead-letters?topic=${agentRunsRequested.name}`)).status).toBe(200);
});

test("while the bus is away work is accepted up to the bound, then refused with a time; nothing accepted is lost (E08)", {
  timeout: 180_000,
}, async () => {
  const changes = new Map<string, TurnChange[]>();
  const read = bus.subscribe({
    topic: conversationTurns.name,
    group: "test.bound",
    handle: async (event) => {
      const { turnId, change } = await codec.decode(conversationTurns, event);
      changes.set(turnId, [...(changes.get(turnId) ?? []), change]);
    },
  });
  const admin = new pg.Client({ connectionString: database.url });
  await admin.connect();
  await admin.query("alter function bus.append rename to append_away");
  const accepted: string[] = [];
  let refused: Response | undefined;
  const { sessionId } = await cadre.sessions.create();
  while (refused === undefined && accepted.length < bound) {
    const answer = await fetch(`${server.url}/v1/sessions/${sessionId}/turns`, {
      method: "POST",
      headers: { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" },
      body: JSON.stringify({ text: "say it", on_busy: "ON_BUSY_ENQUEUE" }),
    });
    if (answer.ok) accepted.push((await answer.json()).turn.turn_id);
    else refused = answer;
  }
  if (refused === undefined) throw new Error("everything was accepted");
  expect(refused.status).toBe(503);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await refused.json()).error).toMatchObject({ status: "unavailable", reason: "BACKPRESSURE" });
  expect(accepted.length).toBeGreaterThan(2);
  await until(async () => (await relayLagOf(server)) >= bound);
  // What was accepted goes on meanwhile.
  const last = accepted.at(-1) ?? "";
  const run = await cadre.runs.get(last);
  await until(async () => (await run.refresh()).state === RunState.SUCCEEDED);
  expect(changes.has(last)).toBe(false);

  await admin.query("alter function bus.append_away rename to append");
  await admin.end();
  const backMs = performance.now();
  const untold = () => {
    const open = accepted.filter((turnId) => changes.get(turnId)?.at(-1) !== TurnChange.SUCCEEDED);
    return open.map((turnId) => [turnId, changes.get(turnId)?.map((change) => TurnChange[change])]);
  };
  await expect.poll(untold, { timeout: 60_000, interval: 100 }).toEqual([]);
  expect(performance.now() - backMs).toBeLessThan(60_000);
  const { ACCEPTED, STARTED, SUCCEEDED } = TurnChange;
  for (const turnId of accepted) expect([...new Set(changes.get(turnId))]).toEqual([ACCEPTED, STARTED, SUCCEEDED]);
  await until(async () => (await relayLagOf(server)) === 0);
  await cadre.sessions.get(sessionId).then((session) => session.send("say more"));
  await read.stop();
});
