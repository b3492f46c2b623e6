import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import {
  AuditDecision,
  type AuditEvent,
  AuditEventSchema,
  AuditService,
  AuditSinkService,
} from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type CredentialsWorld, startCredentialsWorld } from "../../test/support/credentials-world.ts";
import { reasonOf } from "../../test/support/failure.ts";
import { readKeyFile } from "../runtime/identity/key-file.ts";
import { newId, toUuid } from "../runtime/ids/id.ts";
import type { Database } from "../runtime/postgres/database.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import type { AuditFault } from "./domain/audit-chain.ts";
import { createAuditLog } from "./store/audit-log.ts";
import type { CredentialsSchema } from "./store/schema.ts";

let world: CredentialsWorld;
let database: Database<CredentialsSchema>;
let verify: (orgId: string) => Promise<AuditFault | undefined>;
beforeAll(async () => {
  world = await startCredentialsWorld();
  database = openDatabase({ url: world.databaseUrl, service: "credentials", log: pino({ level: "silent" }) });
  const auditLog = createAuditLog(readKeyFile(`${world.dataDirectory}/keys/credentials.key`));
  verify = (orgId) => auditLog.verify(database.engine, toUuid("org", orgId));
});
afterAll(async () => {
  await database.close();
  await world.stop();
});

async function newOrg(): Promise<{ orgId: string; secret: string }> {
  const { org, secret } = await world.client(IdentityService, world.adminKey).createOrg({ name: "audited" });
  return { orgId: org?.orgId ?? "", secret };
}

async function eventsOf(credential: string, type = ""): Promise<AuditEvent[]> {
  return (await world.client(AuditService, credential).listAuditEvents({ type, pageSize: 200 })).events;
}

test("what changes keys and limits, and reading the log, is written by the transaction that does it", async () => {
  const { secret, orgId } = await newOrg();
  const keys = world.client(ApiKeyService, secret);
  const { key } = await keys.issueKey({ name: "a", scopes: ["keys.read"] });
  const keyId = key?.keyId ?? "";
  await keys.revokeKey({ keyId });
  await keys.revokeKey({ keyId });
  await world.client(IdentityService, secret).setLimit({ name: "sessions", value: 300n });
  const events = await eventsOf(secret);
  expect(events.map(({ type, resource }) => [type, resource])).toEqual([
    ["audit.read", "audit"],
    ["limit.set", "limit/sessions"],
    ["key.revoked", `key/${keyId}`],
    ["key.issued", `key/${keyId}`],
  ]);
  for (const event of events) {
    expect(event).toMatchObject({ orgId, decision: AuditDecision.ALLOWED, count: 1, source: "192.0.2.1" });
    expect(event.actor).toMatch(/^key_/);
    expect(event.requestId).toMatch(/^req_/);
    expect(event.traceId).toMatch(/^[0-9a-f]{32}$/);
  }
  expect(await verify(orgId)).toBeUndefined();
});

test("a denied call leaves one row with who, what and why; a flood of the same kind no more than that and a count", async () => {
  const { secret, orgId } = await newOrg();
  const { secret: weak } = await world
    .client(ApiKeyService, secret)
    .issueKey({ name: "weak", scopes: ["sessions.read"] });
  const client = world.client(IdentityService, weak, "198.51.100.7");
  for (let index = 0; index < 40; index++) expect(await reasonOf(client.listLimits({}))).toBe("SCOPE_MISSING");
  expect(await reasonOf(world.client(AuditService, weak).listAuditEvents({}))).toBe("ROLE_TOO_LOW");
  const denied = (await eventsOf(secret)).filter(({ decision }) => decision === AuditDecision.DENIED);
  expect(denied).toHaveLength(2);
  expect(denied[1]).toMatchObject({
    type: "authz.denied",
    reason: "SCOPE_MISSING",
    action: "cadre.credentials.v1.IdentityService/ListLimits",
    resource: "limit",
    source: "198.51.100.7",
    orgId,
  });
  await world.platform.audit("gateway").denials.flush();
  const counts = (await eventsOf(secret, "authz.denied")).filter(({ reason }) => reason === "SCOPE_MISSING");
  expect(counts.reduce((sum, { count }) => sum + count, 0)).toBe(40);
  expect(counts).toHaveLength(2);
});

test("credentials that nobody knows belong to no org; an operator sees them, others do not", async () => {
  await reasonOf(world.client(IdentityService, undefined, "198.51.100.8").listLimits({}));
  const { secret } = await newOrg();
  const find = (events: AuditEvent[]) => events.filter(({ source }) => source === "198.51.100.8");
  expect(find(await eventsOf(world.adminKey))).toMatchObject([{ type: "auth.failed", reason: "NO_CREDENTIAL" }]);
  expect(find(await eventsOf(secret))).toEqual([]);
});

test("a claimed org that is not the credential's is refused and written down", async () => {
  const { secret, orgId } = await newOrg();
  const client = world.client(IdentityService, secret);
  const claim = (value: string) => reasonOf(client.listLimits({}, { headers: { "x-tenant-id": value } }));
  expect(await claim(orgId)).toBe("ok");
  expect(await claim(newId("org"))).toBe("TENANT_MISMATCH");
  expect((await eventsOf(secret, "authz.denied")).map(({ reason }) => reason)).toEqual(["TENANT_MISMATCH"]);
});

test("pages show each event once", async () => {
  const { secret } = await newOrg();
  for (let value = 1n; value <= 5n; value++)
    await world.client(IdentityService, secret).setLimit({ name: "sessions", value });
  const client = world.client(AuditService, secret);
  const ids: string[] = [];
  let pageToken = "";
  do {
    const page = await client.listAuditEvents({ type: "limit.set", pageSize: 2, pageToken });
    ids.push(...page.events.map(({ eventId }) => eventId));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(new Set(ids).size).toBe(5);
  expect(ids).toHaveLength(5);
});

test("an event that came twice is there once, in an order that holds for concurrent batches", async () => {
  const { orgId, secret } = await newOrg();
  const sink = world.platform.client("tools", "credentials", AuditSinkService);
  const batch = Array.from({ length: 20 }, () => toolEvent(orgId));
  await Promise.all(Array.from({ length: 5 }, () => sink.appendAuditEvents({ events: batch })));
  expect(await eventsOf(secret, "tool.called")).toHaveLength(20);
  expect(await verify(orgId)).toBeUndefined();
});

test("texts that no database would take, or that would break a line, are written all the same", async () => {
  const { orgId, secret } = await newOrg();
  const sink = world.platform.client("tools", "credentials", AuditSinkService);
  await sink.appendAuditEvents({ events: [{ ...toolEvent(orgId), actor: "a\u0000b\r\nc", reason: "x".repeat(256) }] });
  expect((await eventsOf(secret, "tool.called"))[0]?.actor).toBe("a\ufffdb\ufffd\ufffdc");
  expect(await verify(orgId)).toBeUndefined();
});

test("services that are not named may not append", async () => {
  const sink = world.platform.client("capsules", "credentials", AuditSinkService);
  expect(await reasonOf(sink.appendAuditEvents({ events: [toolEvent("")] }))).toBe("CALLER_NOT_ALLOWED");
});

test("the service's own roles can neither change nor remove an entry, nor can the schema's owner by a statement", async () => {
  await newOrg();
  for (const role of ["cadre_credentials_app", "cadre_credentials_engine", "cadre_credentials_owner"]) {
    for (const statement of [
      "update credentials.audit_entry set reason = ''",
      "delete from credentials.audit_entry",
      "truncate credentials.audit_entry",
    ]) {
      await expect(
        world.sql(`set app.org = '${toUuid("org", newId("org"))}'; set role ${role}; ${statement}`),
      ).rejects.toThrow(/permission denied|append-only/);
    }
  }
  await world.sql("reset role");
});

describe("tampering with the database is found, and where", () => {
  let orgId: string;
  let uuid: string;
  beforeEach(async () => {
    const org = await newOrg();
    orgId = org.orgId;
    uuid = toUuid("org", orgId);
    for (let value = 1n; value <= 5n; value++) {
      await world.client(IdentityService, org.secret).setLimit({ name: "sessions", value });
    }
    expect(await verify(orgId)).toBeUndefined();
    await world.sql("alter table credentials.audit_entry disable trigger append_only");
  });
  afterEach(async () => {
    await world.sql("alter table credentials.audit_entry enable trigger append_only");
  });

  const table: [string, string, AuditFault][] = [
    [
      "a changed field",
      "update credentials.audit_entry set actor = 'nobody' where org_id = $1 and seq = 3",
      { kind: "altered", seq: 3n },
    ],
    [
      "a changed time",
      "update credentials.audit_entry set at = at + interval '1 ms' where org_id = $1 and seq = 3",
      { kind: "altered", seq: 3n },
    ],
    [
      "a removed entry",
      "delete from credentials.audit_entry where org_id = $1 and seq = 2",
      { kind: "missing", seq: 2n },
    ],
    [
      "a removed first entry",
      "delete from credentials.audit_entry where org_id = $1 and seq = 1",
      { kind: "missing", seq: 1n },
    ],
    ["a cut end", "delete from credentials.audit_entry where org_id = $1 and seq = 5", { kind: "cut", seq: 5n }],
    [
      "a cut end with the head moved back",
      "with cut as (delete from credentials.audit_entry where org_id = $1 and seq = 5) update credentials.audit_head h set seq = 4, hash = (select hash from credentials.audit_entry e where e.org_id = $1 and seq = 4) where org_id = $1",
      { kind: "seal", seq: 4n },
    ],
    ["everything removed", "delete from credentials.audit_entry where org_id = $1", { kind: "cut", seq: 1n }],
  ];
  test.each(table)("%s", async (_, statement, fault) => {
    await world.sql(statement, [uuid]);
    expect(await verify(orgId)).toEqual(fault);
  });

  test("two entries that changed places", async () => {
    await world.sql("update credentials.audit_entry set seq = 100 where org_id = $1 and seq = 2", [uuid]);
    await world.sql("update credentials.audit_entry set seq = 2 where org_id = $1 and seq = 3", [uuid]);
    await world.sql("update credentials.audit_entry set seq = 3 where org_id = $1 and seq = 100", [uuid]);
    expect(await verify(orgId)).toEqual({ kind: "altered", seq: 2n });
  });

  test("an entry that was added at the end, with a right hash", async () => {
    await world.sql(
      `insert into credentials.audit_entry select org_id, 6, gen_random_uuid(), at, type, actor, action, resource, decision, reason, request_id, trace_id, source, count, hash, hash
         from credentials.audit_entry where org_id = $1 and seq = 5`,
      [uuid],
    );
    expect(await verify(orgId)).toEqual({ kind: "altered", seq: 6n });
  });
});

function toolEvent(orgId: string): AuditEvent {
  return create(AuditEventSchema, {
    eventId: newId("evt"),
    at: timestampNow(),
    type: "tool.called",
    orgId,
    actor: "key_test",
    action: "cadre.tools.v1.ToolService/CallTool",
    decision: AuditDecision.ALLOWED,
    count: 1,
  });
}
