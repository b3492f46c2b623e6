import { type Cadre, createCadre } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toDeadLetterEvent } from "../../services/runtime/bus/dead-letter-event.ts";
import { envelopeHeader } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent, EventBus } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { deadLetterTopicOf } from "../../services/runtime/bus/topics.ts";
import type { FailureReason } from "../../services/runtime/errors/app-error.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { turnEvent } from "../support/turn-facts.ts";

// What of an event whose org cannot be told, or that others put where dead
// letters go.

let database: TestDatabase;
let server: RunningCadre;
let operator: Cadre;
let orgId = "";
let bus: EventBus;

beforeAll(async () => {
  database = await createTestDatabase();
  server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url } });
  operator = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  orgId = (await operator.principal()).principal.orgId;
  bus = await openPostgresEventBus({ url: database.url, log: pino({ level: "silent" }) });
}, 90_000);
afterAll(async () => {
  await bus.close();
  await server.dispose();
  await database.drop();
});

async function putAside(event: BusEvent, group: string, reason: FailureReason): Promise<void> {
  const received = { ...event, partition: 0, offset: 0n, publishedAt: new Date() };
  await bus.publish([toDeadLetterEvent(received, { group, attempts: 1, reason, message: "no", failedAt: new Date() })]);
}

test("a letter whose org cannot be told is an operator's, who finds and closes it by its id", async () => {
  const event = await turnEvent(orgId, newId("ses"), 1);
  const foreign = newId("org");
  await putAside({ ...event, key: `${foreign}:x` }, "key.differs", "TENANT_MISMATCH");
  await putAside(
    { ...event, headers: { ...event.headers, [envelopeHeader.orgId]: foreign } },
    "envelope.differs",
    "INTERNAL",
  );
  await putAside({ ...event, headers: {} }, "no.envelope", "MALFORMED_MESSAGE");
  await putAside({ ...event, value: Buffer.from("x") }, "fact.differs", "TENANT_MISMATCH");
  const unattributed = () => Array.fromAsync(operator.deadLetters.list({ unattributed: true }));
  await expect
    .poll(async () => (await unattributed()).map(({ group }) => group).sort())
    .toEqual(["envelope.differs", "fact.differs", "key.differs", "no.envelope"]);
  expect(await Array.fromAsync(operator.deadLetters.list())).toEqual([]);
  const [first] = await unattributed();
  const discarded = await operator.deadLetters.discard(first?.deadLetterId ?? "");
  expect(discarded.closedBy).not.toBe("");
});

test("what others put on a dead-letter topic is kept as well, and says that no group failed", async () => {
  const event = await turnEvent(orgId, newId("ses"), 2);
  await bus.publish([{ ...event, topic: deadLetterTopicOf(event.topic) }]);
  const letters = () => Array.fromAsync(operator.deadLetters.list());
  await expect.poll(async () => (await letters()).length).toBe(1);
  const [letter] = await letters();
  expect(letter).toMatchObject({
    group: "",
    attempts: 0,
    topic: event.topic,
    eventId: event.headers[envelopeHeader.eventId],
  });
});
