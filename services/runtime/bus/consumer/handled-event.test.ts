import { sql } from "kysely";
import pino from "pino";
import { expect, test } from "vitest";
import { effectMigrations } from "../../../../test/support/effect-schema.ts";
import { createTestDatabase } from "../../../../test/support/postgres.ts";
import { newId, toUuid } from "../../ids/id.ts";
import { migrate } from "../../postgres/migrator.ts";
import { openDatabase } from "../../postgres/open-database.ts";
import { handledEventKeptDays, pruneHandledEvents } from "./handled-event.ts";

const log = pino({ level: "silent" });

test("what was handled is forgotten after its days, in batches, and not before", async () => {
  const server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: effectMigrations, log });
  const database = openDatabase<Record<never, never>>({ url: server.url, service: "sample", log });
  const insert = (days: number) =>
    sql`
    insert into handled_event (org_id, consumer_group, event_id, handled_at)
    values (${toUuid("org", newId("org"))}, 'test', ${toUuid("evt", newId("evt"))},
            clock_timestamp() - make_interval(days => ${days}))`.execute(database.engine);
  for (let count = 0; count < 5; count++) await insert(handledEventKeptDays + 1);
  await insert(handledEventKeptDays - 1);
  expect(await pruneHandledEvents(database.engine, 3)).toBe(3);
  expect(await pruneHandledEvents(database.engine, 3)).toBe(2);
  expect(await pruneHandledEvents(database.engine, 3)).toBe(0);
  const { rows } = await sql`select 1 from handled_event`.execute(database.engine);
  expect(rows).toHaveLength(1);
  await database.close();
  await server.drop();
});
