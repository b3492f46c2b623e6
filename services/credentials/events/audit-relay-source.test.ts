import pino from "pino";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { codec } from "../../../test/support/turn-facts.ts";
import type { RelayBatch } from "../../runtime/bus/relay.ts";
import { agentAudit } from "../../runtime/bus/topics.ts";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { migrate } from "../../runtime/postgres/migrator.ts";
import { openDatabase } from "../../runtime/postgres/open-database.ts";
import type { AuditContent } from "../domain/audit-chain.ts";
import { createAuditLog } from "../store/audit-log.ts";
import { migrations } from "../store/migrations/index.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { type AuditPosition, createAuditRelaySource } from "./audit-relay-source.ts";

const log = pino({ level: "silent" });
let server: TestDatabase;
let database: Database<CredentialsSchema>;
/** The first one has a flood of entries. */
let orgs: readonly string[];

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "credentials", migrations, log });
  database = openDatabase({ url: server.url, service: "credentials", log });
});
afterAll(async () => {
  await database.close();
  await server.drop();
});
beforeEach(async () => {
  orgs = Array.from({ length: 4 }, () => toUuid("org", newId("org")));
  const auditLog = createAuditLog(new Uint8Array(32));
  const contents = orgs.flatMap((org, index) => Array.from({ length: index === 0 ? 50 : 5 }, () => content(org)));
  await database.engine.transaction().execute((transaction) => auditLog.append(transaction, contents));
});

function content(orgId: string): AuditContent {
  const texts = { actor: "", action: "", resource: "", reason: "", request_id: "", trace_id: "", source: "" };
  return {
    ...texts,
    org_id: orgId,
    event_id: toUuid("evt", newId("evt")),
    at: new Date(),
    type: "test",
    decision: 1,
    count: 1,
  };
}

const source = () => createAuditRelaySource({ engine: database.engine, codec, lease: { hold: async () => true } });

test("a log is read in bounded batches that leave nothing out; a flood of one org holds up no other", async () => {
  const seen: string[] = [];
  for (let more = true; more; ) {
    const batch = await source().read(10);
    if (batch === undefined) break;
    expect(batch.events.length).toBeLessThanOrEqual(10);
    seen.push(...batch.events.map(({ key }) => key.split(":")[0] ?? ""));
    await source().markRelayed(batch.position);
    more = batch.more;
  }
  expect(seen).toHaveLength(65);
  // The others are through before the flood is.
  const flood = fromUuid("org", orgs[0] ?? "");
  expect(seen.slice(0, 40).filter((org) => org !== flood)).toHaveLength(15);
  expect(await source().lag()).toBe(0n);
  expect(await source().read(10)).toBeUndefined();
});

test("relays that work at once repeat entries, and neither skip nor turn round any", async () => {
  const published: { key: string; seq: bigint }[] = [];
  async function publish(batch: RelayBatch<AuditPosition> | undefined): Promise<void> {
    for (const event of batch?.events ?? []) {
      const { metadata } = await codec.decode(agentAudit, event);
      published.push({ key: event.key, seq: metadata?.seq ?? 0n });
    }
  }
  // Each reads before the other has marked, and marks after the other has read on.
  const [first, second] = [source(), source()];
  for (let held = await first.read(7); held !== undefined; ) {
    const other = await second.read(11);
    await publish(other);
    await publish(held);
    if (other !== undefined) await second.markRelayed(other.position);
    const next = await second.read(5);
    await first.markRelayed(held.position);
    held = next;
  }
  for (const key of new Set(published.map((one) => one.key))) {
    const seqs = new Set(published.filter((one) => one.key === key).map(({ seq }) => seq));
    expect([...seqs]).toEqual(Array.from(seqs, (_, index) => BigInt(index + 1)));
  }
  expect(new Set(published.map(({ key, seq }) => `${key} ${seq}`)).size).toBe(65);
  expect(published.length).toBeGreaterThan(65);
  expect(await first.lag()).toBe(0n);
});

test("a hole that somebody cut into a log stays visible in the numbers, and stops nobody", async () => {
  const [org = ""] = orgs;
  const { engine } = database;
  await engine.transaction().execute(async (transaction) => {
    // As whoever has the whole database could.
    await transaction.updateTable("audit_head").set({ seq: 60n }).where("org_id", "=", org).execute();
  });
  const seqs: bigint[] = [];
  for (let batch = await source().read(100); batch !== undefined; batch = await source().read(100)) {
    for (const event of batch.events) {
      const { metadata } = await codec.decode(agentAudit, event);
      if (metadata?.orgId === fromUuid("org", org)) seqs.push(metadata.seq);
    }
    await source().markRelayed(batch.position);
  }
  expect(seqs).toEqual(Array.from({ length: 50 }, (_, index) => BigInt(index + 1)));
  expect(await source().lag()).toBe(0n);
});
