import { sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { DeadLetterEvent } from "../../runtime/bus/dead-letter-event.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { migrateDown, migrateUp } from "../../runtime/postgres/migrator.ts";
import { openDatabase } from "../../runtime/postgres/open-database.ts";
import type { DeadLetter } from "./dead-letter-store.ts";
import { migrations } from "./migrations/index.ts";
import { PostgresDeadLetterStore } from "./postgres-dead-letter-store.ts";

const log = pino({ level: "silent" });
const any = { topic: "", group: "", state: undefined };
let server: TestDatabase;
let database: Database<Record<never, never>>;
let store: PostgresDeadLetterStore;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrateUp({ url: server.url, service: "events", migrations, log });
  database = openDatabase({ url: server.url, service: "events", log });
  store = new PostgresDeadLetterStore(database);
});
afterAll(async () => {
  await database.close();
  await migrateDown({ url: server.url, service: "events", migrations, log, to: "" });
  await server.drop();
});

let nextOffset = 0n;
function letter(
  given: { readonly topic?: string; readonly group?: string; readonly key?: string } = {},
): DeadLetterEvent {
  nextOffset += 1n;
  const { topic = "conversation.turns.v1", group = "a", key = "k" } = given;
  return {
    event: { topic, key, headers: { "cadre-event-id": newId("evt") }, value: Buffer.from([0, 255, 1, 254]) },
    partition: 3,
    offset: nextOffset,
    failure: { group, attempts: 3, reason: "INTERNAL", message: "no", failedAt: new Date(1_700_000_000_000) },
  };
}

async function kept(orgId: string, one = letter()): Promise<DeadLetter> {
  expect(await store.keep(orgId, one)).toBe(true);
  const found = (await store.list(orgId, any, undefined, 1_000)).find(({ offset }) => offset === one.offset);
  if (found === undefined) throw new Error("a letter that was kept is listed");
  return found;
}

function newOrg(): string {
  return toUuid("org", newId("org"));
}

test("a letter is kept once, and given back byte for byte, whatever characters are in it", async () => {
  const orgId = newOrg();
  const odd = { ...letter({ key: "o\0dd\u2028\ud83d\ude80" }) };
  const headers = { "x\0y": "nul \0 in it", "cadre-event-type": "t\0".repeat(400) };
  const given = { ...odd, event: { ...odd.event, headers }, failure: { ...odd.failure, message: "no\0t" } };
  const { deadLetterId, eventType } = await kept(orgId, given);
  expect(eventType).toHaveLength(249);
  expect(await store.keep(orgId, given)).toBe(false);
  const found = await store.find({ orgIds: [orgId], deadLetterId });
  expect(found?.event).toEqual({ ...given.event, value: Buffer.from(given.event.value) });
  expect(found?.letter.failure).toEqual({ ...given.failure, message: "not" });
});

test("lists newest first, page by page, by topic, group and state, and an org sees its own alone", async () => {
  const [orgId, other] = [newOrg(), newOrg()];
  const all: DeadLetter[] = [];
  for (const [topic, group] of [
    ["one", "a"],
    ["two", "a"],
    ["one", "b"],
    ["one", "a"],
  ] as const) {
    all.unshift(await kept(orgId, letter({ topic, group })));
  }
  await kept(other);
  const ids = (letters: readonly DeadLetter[]) => letters.map(({ deadLetterId }) => deadLetterId);
  const [first, second, third, fourth] = ids(all);
  expect(ids(await store.list(orgId, any, undefined, 3))).toEqual([first, second, third]);
  expect(ids(await store.list(orgId, any, third, 3))).toEqual([fourth]);
  expect(ids(await store.list(orgId, { ...any, topic: "one", group: "a" }, undefined, 9))).toEqual([first, fourth]);
  await store.close(
    { orgIds: [orgId], deadLetterId: second ?? "" },
    { state: "discarded", by: "key_1", before: async () => undefined },
  );
  expect(ids(await store.list(orgId, { ...any, state: "discarded" }, undefined, 9))).toEqual([second]);
  expect(await store.find({ orgIds: [other], deadLetterId: first ?? "" })).toBeUndefined();
});

test("of twenty who close at once one does the work, and all are told the same", async () => {
  const orgId = newOrg();
  const { deadLetterId } = await kept(orgId);
  let done = 0;
  const closing = (by: string) => ({
    state: "requeued" as const,
    by,
    before: async () => {
      done += 1;
    },
  });
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => store.close({ orgIds: [orgId], deadLetterId }, closing(`key_${index}`))),
  );
  expect(done).toBe(1);
  expect(new Set(answers.map((answer) => `${answer?.state} ${answer?.closedBy}`)).size).toBe(1);
});

test("work that fails leaves the letter kept, for another try", async () => {
  const orgId = newOrg();
  const { deadLetterId } = await kept(orgId);
  const reference = { orgIds: [orgId], deadLetterId };
  const failing = store.close(reference, {
    state: "requeued",
    by: "key_1",
    before: async () => {
      throw new Error("the bus is away");
    },
  });
  await expect(failing).rejects.toThrow("the bus is away");
  expect((await store.find(reference))?.letter).toMatchObject({ state: "kept", closedAt: undefined, closedBy: "" });
  const again = await store.close(reference, { state: "requeued", by: "key_1", before: async () => undefined });
  expect(again).toMatchObject({ state: "requeued", closedBy: "key_1" });
});

test("what is older than its days is removed, in batches, and nothing else", async () => {
  const orgId = newOrg();
  const letters = [await kept(orgId), await kept(orgId), await kept(orgId)];
  const old = letters.slice(0, 2).map(({ deadLetterId }) => deadLetterId);
  await sql`update dead_letter set kept_at = clock_timestamp() - interval '91 days'
    where dead_letter_id = any(${old}::uuid[])`.execute(database.engine);
  expect(await store.prune(90, 1)).toBe(1);
  expect(await store.prune(90, 100)).toBe(1);
  expect(await store.prune(90, 100)).toBe(0);
  expect(await store.list(orgId, any, undefined, 9)).toHaveLength(1);
});
