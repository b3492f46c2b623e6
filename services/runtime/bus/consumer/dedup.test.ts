import type { TurnChanged } from "@cadre/gen/cadre/events/v1/turn_pb";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type EffectSchema, effectMigrations } from "../../../../test/support/effect-schema.ts";
import { createTestDatabase, type TestDatabase } from "../../../../test/support/postgres.ts";
import { turnEvent, turnFact } from "../../../../test/support/turn-facts.ts";
import { newId, toUuid } from "../../ids/id.ts";
import type { Database } from "../../postgres/database.ts";
import { migrate } from "../../postgres/migrator.ts";
import { openDatabase } from "../../postgres/open-database.ts";
import type { FactHandler } from "./bounded-handler.ts";
import { dedup } from "./dedup.ts";

const log = pino({ level: "silent" });
const orgId = newId("org");
const never = new AbortController().signal;
let server: TestDatabase;
let database: Database<EffectSchema>;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: effectMigrations, log });
  database = openDatabase<EffectSchema>({ url: server.url, service: "sample", log });
});
afterAll(async () => {
  await database.close();
  await server.drop();
});

type Handle = FactHandler<TurnChanged, EffectSchema>;

const note: Handle = async ({ eventId }, transaction) => {
  await transaction
    .insertInto("effect")
    .values({ org_id: toUuid("org", orgId), event_id: eventId, seq: 1 })
    .execute();
};

function once(handle: Handle, group = "test.once") {
  return dedup({ topic: "conversation.turns.v1", group }, database, handle, 1_000);
}

async function newEvent() {
  const fact = turnFact(orgId, newId("ses"), 1);
  const event = { ...(await turnEvent(orgId, fact.sessionId, 1)), partition: 0, offset: 0n, publishedAt: new Date() };
  return { event, fact, eventId: fact.metadata?.eventId ?? "", orgId };
}

async function effectsOf(eventId: string): Promise<number> {
  return (await database.engine.selectFrom("effect").select("seq").where("event_id", "=", eventId).execute()).length;
}

test("of twenty attempts at once one has the effect; another group has its own", async () => {
  const decoded = await newEvent();
  const handler = once(note);
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => handler(decoded, never)));
  expect(outcomes.filter((outcome) => outcome === "handled")).toHaveLength(1);
  expect(outcomes.filter((outcome) => outcome === "repeated")).toHaveLength(19);
  expect(await effectsOf(decoded.eventId)).toBe(1);
  expect(await once(note, "test.other")(decoded, never)).toBe("handled");
  expect(await effectsOf(decoded.eventId)).toBe(2);
});

test("a handler that throws leaves nothing, so that the next attempt counts", async () => {
  const decoded = await newEvent();
  const failing = once(async (given, transaction, signal) => {
    await note(given, transaction, signal);
    throw new Error("no");
  });
  await expect(failing(decoded, never)).rejects.toThrow("no");
  expect(await effectsOf(decoded.eventId)).toBe(0);
  expect(await once(note)(decoded, never)).toBe("handled");
});

test("an attempt whose time was over before its turn came does not begin", async () => {
  const decoded = await newEvent();
  const over = new AbortController();
  const { promise: claimed, resolve: onClaimed } = Promise.withResolvers<void>();
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const holding = once(async () => {
    onClaimed();
    await released;
    throw new Error("given up");
  })(decoded, never);
  holding.catch(() => undefined); // expected below
  await claimed;
  let began = false;
  const waiting = once(async () => {
    began = true;
    await new Promise(() => undefined);
  })(decoded, over.signal);
  waiting.catch(() => undefined); // expected below
  over.abort(new Error("over"));
  release();
  await expect(holding).rejects.toThrow("given up");
  await expect(waiting).rejects.toThrow("over");
  expect(began).toBe(false);
  expect(await once(note)(decoded, never)).toBe("handled");
});
