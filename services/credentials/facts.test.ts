import { timestampDate } from "@bufbuild/protobuf/wkt";
import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { AuditRecorded } from "@cadre/gen/cadre/events/v1/audit_pb";
import { CredentialsChange, type CredentialsChanged } from "@cadre/gen/cadre/events/v1/credentials_pb";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CredentialsWorld, startCredentialsWorld } from "../../test/support/credentials-world.ts";
import { reasonOf } from "../../test/support/failure.ts";
import { until } from "../../test/support/settled.ts";
import { codec } from "../../test/support/turn-facts.ts";
import { eventIdOf } from "../runtime/bus/envelope.ts";
import type { EventBus, ReceivedEvent } from "../runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../runtime/bus/postgres-event-bus.ts";
import { agentAudit, credentialsChanged } from "../runtime/bus/topics.ts";
import { fromUuid, toUuid } from "../runtime/ids/id.ts";
import type { Database } from "../runtime/postgres/database.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import { ChainCheck, noOrg } from "./domain/audit-chain.ts";
import type { CredentialsSchema } from "./store/schema.ts";

const log = pino({ level: "silent" });
let world: CredentialsWorld;
let bus: EventBus;
let database: Database<CredentialsSchema>;
/** All that a group was given, from the topics' beginnings. */
const received: ReceivedEvent[] = [];
const recorded: AuditRecorded[] = [];
const changed: CredentialsChanged[] = [];

beforeAll(async () => {
  world = await startCredentialsWorld();
  database = openDatabase({ url: world.databaseUrl, service: "credentials", log });
  bus = await openPostgresEventBus({ url: world.databaseUrl, log });
  const group = "test.credentials";
  bus.subscribe({
    topic: agentAudit.name,
    group,
    handle: async (event) => void (received.push(event), recorded.push(await codec.decode(agentAudit, event))),
  });
  bus.subscribe({
    topic: credentialsChanged.name,
    group,
    handle: async (event) => void (received.push(event), changed.push(await codec.decode(credentialsChanged, event))),
  });
});
afterAll(async () => {
  await bus.close();
  await database.close();
  await world.stop();
});

async function newOrg(): Promise<{ orgId: string; secret: string }> {
  const { org, secret } = await world.client(IdentityService, world.adminKey).createOrg({ name: "told" });
  return { orgId: org?.orgId ?? "", secret };
}

/** An org's facts in the order in which they came first: on a slow machine one may come again. */
const recordedOf = (orgId: string) => firstOf(recorded, orgId);
const changedOf = (orgId: string) => firstOf(changed, orgId);

function firstOf<F extends AuditRecorded | CredentialsChanged>(facts: readonly F[], orgId: string): readonly F[] {
  const first = new Map<bigint | undefined, F>();
  for (const fact of facts) {
    const { metadata } = fact;
    if (metadata?.orgId === orgId && !first.has(metadata.seq)) first.set(metadata.seq, fact);
  }
  return [...first.values()];
}

/** The hash that the chain of facts ends with; throws where it breaks. */
function rebuild(facts: readonly AuditRecorded[]): string {
  const check = new ChainCheck();
  for (const { metadata, ...fact } of facts) {
    if (metadata?.at === undefined) throw new TypeError("a fact without its metadata");
    const fault = check.next({
      ...fact,
      org_id: toUuid("org", metadata.orgId),
      event_id: toUuid("evt", metadata.eventId),
      at: timestampDate(metadata.at),
      request_id: metadata.requestId,
      trace_id: metadata.traceId,
      seq: metadata.seq,
      previous_hash: Buffer.from(fact.previousHash),
      hash: Buffer.from(fact.hash),
    });
    if (fault !== undefined) throw new Error(`${fault.kind} at ${fault.seq}`);
  }
  return Buffer.from(facts.at(-1)?.hash ?? []).toString("hex");
}

/** The number and hash that an org's stored log ends with. */
async function headOf(orgId: string): Promise<{ seq: bigint; hash: string }> {
  const { seq, hash } = await database.engine
    .selectFrom("audit_head")
    .select(["seq", "hash"])
    .where("org_id", "=", toUuid("org", orgId))
    .executeTakeFirstOrThrow();
  return { seq, hash: hash.toString("hex") };
}

async function whenTold(orgId: string): Promise<void> {
  const { seq } = await headOf(orgId);
  await until(() => recordedOf(orgId).length === Number(seq));
}

test("an org's audit log comes in order, and its hash chain is rebuilt from the facts alone", async () => {
  const { orgId, secret } = await newOrg();
  const keys = world.client(ApiKeyService, secret);
  const issued = await keys.issueKey({ name: "told", scopes: ["sessions.read"] });
  await world.client(IdentityService, secret).setLimit({ name: "sessions", value: 300n });
  await keys.revokeKey({ keyId: issued.key?.keyId ?? "" });
  expect(await reasonOf(world.client(IdentityService, issued.secret).listLimits({}))).toBe("UNAUTHENTICATED");
  await whenTold(orgId);
  const facts = recordedOf(orgId);
  expect(facts.map(({ type, metadata }) => [type, metadata?.seq])).toEqual([
    ["key.issued", 1n],
    ["limit.set", 2n],
    ["key.revoked", 3n],
    ["auth.failed", 4n],
  ]);
  expect(rebuild(facts)).toBe((await headOf(orgId)).hash);
  for (const { metadata } of facts.slice(0, 3)) {
    expect(metadata?.requestId).toMatch(/^req_/);
    expect(metadata?.traceId).toMatch(/^[0-9a-f]{32}$/);
  }
  const events = received.filter(({ key }) => key.startsWith(orgId));
  expect(new Set(events.filter(({ topic }) => topic === agentAudit.name).map(({ key }) => key))).toEqual(
    new Set([`${orgId}:audit`]),
  );
  for (const { value } of events) {
    for (const hidden of [secret, issued.secret]) expect(Buffer.from(value).includes(hidden)).toBe(false);
  }
  // Changed facts do not pass: neither an entry that says another thing, nor one that is left out.
  expect(() => rebuild(facts.map((fact) => ({ ...fact, actor: "nobody" })))).toThrow("altered at 1");
  expect(() => rebuild(facts.toSpliced(1, 1))).toThrow("missing at 2");
  // What is nobody's is told as well.
  await reasonOf(world.client(IdentityService, undefined).listLimits({}));
  await whenTold(fromUuid("org", noOrg));
  expect(recordedOf(fromUuid("org", noOrg)).map(({ type }) => type)).toContain("auth.failed");
});

test("a revocation and a limit are told in order, with the request and the trace that they come from", async () => {
  const { orgId, secret } = await newOrg();
  const { key } = await world.client(ApiKeyService, secret).issueKey({ name: "a", scopes: ["keys.read"] });
  await world.client(IdentityService, secret).setLimit({ name: "sessions", value: 300n });
  await world.client(ApiKeyService, secret).revokeKey({ keyId: key?.keyId ?? "" });
  await until(() => changedOf(orgId).length === 2);
  const facts = changedOf(orgId);
  expect(facts).toMatchObject([
    { change: CredentialsChange.LIMITS, subject: "", tokenId: "" },
    { change: CredentialsChange.REVOKED, subject: key?.keyId, tokenId: "" },
  ]);
  const [first, second] = facts.map(({ metadata }) => metadata?.seq ?? 0n);
  expect(first).toBeLessThan(second ?? 0n);
  await whenTold(orgId);
  // The same request is in the audit log.
  const requestOf = (type: string) => recordedOf(orgId).find((fact) => fact.type === type)?.metadata;
  expect(facts[0]?.metadata).toMatchObject({
    requestId: requestOf("limit.set")?.requestId,
    traceId: requestOf("limit.set")?.traceId,
  });
  const [event] = received.filter(({ topic, key: of }) => topic === credentialsChanged.name && of.startsWith(orgId));
  expect(event?.key).toBe(`${orgId}:credentials`);
  expect(event?.headers["traceparent"]).toContain(facts[0]?.metadata?.traceId);
});

test("of two replicas one relays, and the other goes on where it ended", async () => {
  const replica = await startCredentialsWorld({ replicaOf: world });
  const { orgId, secret } = await newOrg();
  const set = (value: bigint) => world.client(IdentityService, secret).setLimit({ name: "sessions", value });
  await set(1n);
  await whenTold(orgId);
  const ids = [world, replica].map(({ platform }) => platform.processId);
  const [row] = await world.sql<{ holder: string }>("select holder from credentials.relay");
  expect(ids).toContain(row?.holder);
  // The other one takes it over.
  await world.sql("update credentials.relay set holder = $1", [ids.find((id) => id !== row?.holder)]);
  await set(2n);
  await whenTold(orgId);
  await replica.stop();
  await set(3n);
  await whenTold(orgId);
  const told = received.filter(({ key }) => key === `${orgId}:audit`).map(eventIdOf);
  expect(new Set(told).size).toBe(3);
  expect(rebuild(recordedOf(orgId))).toBe((await headOf(orgId)).hash);
});

test("no request waits for a relay that hangs in the middle of its work", async () => {
  const { orgId, secret } = await newOrg();
  const set = (value: bigint) => world.client(IdentityService, secret).setLimit({ name: "sessions", value });
  await set(1n);
  await whenTold(orgId);
  await database.engine.transaction().execute(async (transaction) => {
    // All that a relay writes to, as if it never came to its commit.
    await transaction.selectFrom("relay").selectAll().forUpdate().execute();
    await transaction.selectFrom("audit_relayed").selectAll().forUpdate().execute();
    await set(2n);
    expect((await headOf(orgId)).seq).toBe(2n);
  });
  await whenTold(orgId);
});
