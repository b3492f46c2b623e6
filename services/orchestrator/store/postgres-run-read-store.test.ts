import { randomUUID } from "node:crypto";
import pg from "pg";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { migrateOrchestrator } from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { openDatabase } from "../../runtime/postgres/open-database.ts";
import { runState } from "./append-store.ts";
import { PostgresRunReadStore } from "./postgres-run-read-store.ts";
import type { RunSelection } from "./run-read-store.ts";
import type { OrchestratorSchema } from "./schema.ts";

const orgId = randomUUID();
const parentRunId = "01980000-0000-7000-8000-000000000001";
const scheduleId = randomUUID();
const hourMs = 3_600_000;
/** When the first of the runs was stored; one follows each second. */
const firstMs = Date.UTC(2026, 0, 1);
const total = 100_000;

let testDatabase: TestDatabase;
let database: Database<OrchestratorSchema>;
let store: PostgresRunReadStore;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  await migrateOrchestrator(testDatabase.url);
  const client = new pg.Client(testDatabase.url);
  await client.connect();
  // Rows as they are left by runs, of two orgs; the ids begin with their times, as UUIDv7 do.
  await client.query(
    `insert into orchestrator.run (run_id, org_id, root_id, parent_run_id, shard, name, state, ended, labels, schedule_id,
       view, head, created_at, ended_at)
     select id, case when i % 10 = 0 then $2::uuid else $1::uuid end, id,
       case when i % 1000 = 1 then $3::uuid end, 0, 'graph-' || i % 7,
       case i % 50 when 0 then 2 when 1 then 5 when 2 then 1 when 3 then 6 else 4 end, i % 50 not in (0, 2),
       case when i % 5000 = 7 then '{"rare": "yes", "team": "a"}' when i % 2 = 0 then '{"team": "a"}' else '{}' end::jsonb,
       case when i % 3000 = 9 then $4::uuid end, '', 3, at, at
     from (select i, to_timestamp($5::bigint + i) as at,
         (lpad(to_hex(($5::bigint + i) * 1000), 12, '0') || '7' || substr(md5(i::text), 1, 19))::uuid as id
       from generate_series(1, ${total}) i) rows`,
    [orgId, randomUUID(), parentRunId, scheduleId, firstMs / 1000],
  );
  await client.query("analyze orchestrator.run, orchestrator.run_label");
  await client.end();
  const log = pino({ level: "silent" }) as Logger;
  database = openDatabase<OrchestratorSchema>({
    url: testDatabase.url,
    service: "orchestrator",
    log,
    maxConnections: 2,
  });
  store = new PostgresRunReadStore(database);
}, 120_000);
afterAll(async () => {
  await database.close();
  await testDatabase.drop();
});

const all: RunSelection = {
  states: [],
  name: undefined,
  labels: {},
  sessionId: undefined,
  scheduleId: undefined,
  parentRunId: undefined,
  runIds: [],
  createdFromMs: undefined,
  createdBeforeMs: undefined,
};

test.each<[string, Partial<RunSelection>, number]>([
  ["all", {}, 50],
  ["open ones", { states: [runState.running, runState.waiting] }, 50],
  ["failed ones of a name", { states: [runState.failed], name: "graph-3" }, 50],
  ["a common label", { labels: { team: "a" } }, 50],
  ["a rare label", { labels: { rare: "yes" } }, 20],
  ["two labels", { labels: { rare: "yes", team: "a" } }, 20],
  ["a label that no run has", { labels: { nosuch: "x" } }, 0],
  ["a name that no run has", { name: "nosuch" }, 0],
  ["children of a run", { parentRunId }, 50],
  ["of a schedule", { scheduleId }, 34],
  ["of a session", { sessionId: randomUUID() }, 0],
  ["an hour long ago", { createdFromMs: firstMs, createdBeforeMs: firstMs + hourMs }, 50],
  ["before all", { createdBeforeMs: firstMs }, 0],
])("of 100,000 runs, %s are found within 200 ms, newest first", async (_, selection, count) => {
  const durations: number[] = [];
  let rows: readonly { readonly runId: string }[] = [];
  for (let time = 0; time < 5; time += 1) {
    const startedAt = performance.now();
    rows = await store.list(orgId, { ...all, ...selection }, undefined, 50);
    durations.push(performance.now() - startedAt);
  }
  expect(rows).toHaveLength(count);
  const ids = rows.map(({ runId }) => runId);
  expect(ids).toEqual(ids.toSorted().reverse());
  // The quickest, since what else the machine does is not the store's.
  expect(Math.min(...durations)).toBeLessThan(200);
});

test("pages of a filtered list hold each run once, and as many as are counted", async () => {
  const selection = { ...all, states: [runState.failed] };
  const seen = new Set<string>();
  for (let before: string | undefined; ; ) {
    const page = await store.list(orgId, selection, before, 200);
    for (const { runId, state } of page) {
      expect(state).toBe(runState.failed);
      seen.add(runId);
    }
    if (page.length < 200) break;
    before = page.at(-1)?.runId;
  }
  expect(seen.size).toBe(await store.count(orgId, selection));
  // One in 50 failed; of those, two in 40 are children of another run.
  expect(seen.size).toBe(1_900);
});

test("labels go with their run", async () => {
  const client = new pg.Client(testDatabase.url);
  await client.connect();
  const left = async () =>
    (await client.query("select count(*)::int as count from orchestrator.run_label where name = 'rare'")).rows[0].count;
  expect(await left()).toBe(20);
  await client.query("delete from orchestrator.run where labels ? 'rare'");
  expect(await left()).toBe(0);
  await client.end();
});

test("runs of another org are not found", async () => {
  expect(await store.list(randomUUID(), all, undefined, 10)).toEqual([]);
});
