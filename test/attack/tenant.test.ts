import type { JsonObject } from "@bufbuild/protobuf";
import { getOption } from "@bufbuild/protobuf";
import { Exposure, exposure, Relation } from "@cadre/gen/cadre/options/v1/options_pb";
import { type Cadre, createCadre, defineTool } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { newId } from "../../services/runtime/ids/id.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { callRaw } from "../support/connect-json.ts";
import { contract } from "../support/contract-messages.ts";
import { putAside } from "../support/dead-letters.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type PublicMethod, publicMethods, publicServices } from "../support/public-method.ts";

// Made from the contract: a method that is added tomorrow is tried tomorrow.

let database: TestDatabase;
let server: RunningCadre;
let operator: Cadre;
let ownerKeyOfB = "";
let revokedKey = "";
let unscopedKey = "";
const stopWorker = new AbortController();
/** Org B's objects, by the prefix of their ids. */
const idsOfB = new Map<string, string>();

beforeAll(async () => {
  database = await createTestDatabase();
  server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url } });
  operator = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const made = await callRaw(server.url, methodNamed("IdentityService/CreateOrg"), { name: "B" }, server.adminKey);
  ownerKeyOfB = JSON.parse(made.body).secret;
  const b = createCadre({ baseUrl: server.url, apiKey: ownerKeyOfB });

  const session = await b.sessions.create();
  idsOfB.set("ses", session.sessionId);
  idsOfB.set("agt", session.session.agentId);
  const turn = await session.send("hello");
  idsOfB.set("run", turn.turnId);
  const scheduled = await callRaw(
    server.url,
    methodNamed("ScheduleService/PutSchedule"),
    { definition: schedule },
    ownerKeyOfB,
  );
  idsOfB.set("sch", JSON.parse(scheduled.body).schedule.scheduleId);
  idsOfB.set("key", (await b.keys.issue({ name: "of B", scopes: ["sessions.read"] })).key.keyId);
  const { promise: called, resolve: onCall } = Promise.withResolvers<string>();
  const worker = await b.tools.serve(
    [
      defineTool({
        name: "held",
        description: "Is called and does not end.",
        inputSchema: { type: "object" },
        // It is held until all methods were tried, however slow the machine.
        timeoutMs: 300_000,
        handler: (_, { callId, signal }) => {
          onCall(callId);
          return new Promise((resolve) => signal.addEventListener("abort", () => resolve(null)));
        },
      }),
      defineTool({ name: "quick", description: "Ends at once.", inputSchema: { type: "object" }, handler: () => null }),
    ],
    { signal: stopWorker.signal },
  );
  idsOfB.set("wrk", worker.workerId);
  const tools = await Array.fromAsync(b.tools.list());
  const quick = tools.find(({ definition }) => definition?.name === "quick");
  idsOfB.set("tool", quick?.toolId ?? "");
  await session.send("held: {}", { onBusy: "enqueue" });
  idsOfB.set("call", await called);
  const file = (type: string) => ({
    path: "b.proto",
    schema: `syntax = "proto3"; message B { ${type} id = 1; }`,
    imports: [],
  });
  await b.contracts.push([file("string")]);
  idsOfB.set("rev", (await b.contracts.reviews.request([file("int64")], "a probe")).reviewId);
  idsOfB.set("dlt", (await putAside(database.url, b, 1))[0]?.deadLetterId ?? "");

  const revoked = await operator.keys.issue({ name: "to be revoked", scopes: ["*"], role: "admin" });
  revokedKey = revoked.secret;
  await operator.keys.revoke(revoked.key.keyId);
  unscopedKey = (await operator.keys.issue({ name: "no scope of use", scopes: ["nothing.read"], role: "owner" }))
    .secret;
});
afterAll(async () => {
  stopWorker.abort();
  await server.dispose();
  await database.drop();
});

function methodNamed(end: string) {
  const found = publicMethods.find(({ name }) => name.endsWith(`.${end}`));
  if (found === undefined) throw new Error(`no method ${end}`);
  return found.method;
}

const definition = { name: "probe_tool", description: "x", input_schema: { type: "object" } };

const schema = { type: "SCHEMA_TYPE_PROTOBUF", schema: 'syntax = "proto3";' };
const contracts = [{ path: "probe.proto", schema: schema.schema }];

const schedule = {
  name: "probe",
  cron: "0 0 1 1 *",
  run: { graph: { name: "probe", steps: [{ name: "wait", timer: { duration: "1s" } }] } },
};

/** What a request needs besides ids to be valid. A method that needs more and is not here fails its test. */
const requestOf: Readonly<Record<string, JsonObject>> = {
  SendTurn: { text: "hello", on_busy: "ON_BUSY_ENQUEUE" },
  ReportOutput: { seq: "1", output: "x" },
  ReportResult: { result: 1 },
  Connect: { tools: [definition], concurrency: 1 },
  RegisterTool: { definition },
  RegisterAgent: { definition: { name: "probe", model: "scripted" } },
  IssueKey: { name: "probe", scopes: ["sessions.read"] },
  RevokeToken: { id: { issuer: "https://login.example.com", token_id: "probe" } },
  SignRunRequest: { request_sha256: Buffer.alloc(32).toString("base64") },
  CreateOrg: { name: "probe" },
  StartRun: { agent: "probe" },
  SignalRun: { signal: "probe" },
  DecideApproval: { step: "probe", approved: true },
  BatchRuns: { action: "BATCH_ACTION_CANCEL", filter: {}, dry_run: true },
  ReplayRuns: { filter: {} },
  PutSchedule: { definition: schedule },
  RegisterSchema: { subject: "probe", schema },
  ForceSchema: { subject: "probe", schema, reason: "a probe" },
  LookupSchema: { subject: "probe", schema },
  CheckCompatibility: { subject: "probe", schema },
  ListSubjectVersions: { subject: "probe" },
  GetSubjectVersion: { subject: "probe", version: 1 },
  ListReferencingSchemas: { subject: "probe", version: 1 },
  DeleteSubject: { subject: "probe" },
  DeleteSubjectVersion: { subject: "probe", version: 1 },
  GetSchema: { schema_id: 1 },
  ListSchemaUsages: { schema_id: 1 },
  PushContracts: { contracts },
  ForceContracts: { contracts, reason: "a probe" },
  CompareContracts: { contracts },
  ListSubjectHistory: { subject: "probe" },
  RequestReview: { contracts, reason: "a probe" },
  GetReviewFile: { path: "b.proto" },
  RejectReview: { reason: "a probe" },
  SetLimit: { name: "sessions", value: "200" },
};

function request({ method, ids }: PublicMethod, idOf: (prefix: string) => string): JsonObject {
  return { ...requestOf[method.name], ...Object.fromEntries(ids.map(({ field, prefix }) => [field, idOf(prefix)])) };
}

const unknownId = (prefix: string): string => newId(prefix as "ses");

/** Methods that act on an object that exists: creating a session may name an agent, which is looked up all the same. */
const withIds = publicMethods.filter(({ ids }) => ids.length > 0);
/** What ends an object comes last, so that org B still finds it until then. */
const endings = [
  "ReportOutput",
  "ReportResult",
  "CancelTurn",
  "CancelRun",
  "Drain",
  "DiscardDeadLetter",
  "RejectReview",
  "Connect",
  "RevokeKey",
  "DeleteRun",
  "DeleteSchedule",
  "DeleteSession",
];
const ordered = [...withIds].sort((a, b) => endings.indexOf(a.method.name) - endings.indexOf(b.method.name));

test("every public service of the contract is tried", () => {
  const declared = [...contract.files]
    .flatMap(({ services }) => services)
    .filter((service) => getOption(service, exposure) === Exposure.PUBLIC);
  expect(publicServices.map(({ typeName }) => typeName).sort()).toEqual(
    declared.map(({ typeName }) => typeName).sort(),
  );
});

test.each(ordered)("$name: an object of another org is answered like an unknown one", async (publicMethod) => {
  const { method } = publicMethod;
  const objects = request(publicMethod, (prefix) => idsOfB.get(prefix) ?? "");
  const asked = await callRaw(server.url, method, objects, server.adminKey);
  const unknown = await callRaw(server.url, method, request(publicMethod, unknownId), server.adminKey);
  expect(unknown.reason).toMatch(/_NOT_FOUND$/);
  expect(asked).toEqual(unknown);
  for (const id of idsOfB.values()) expect(asked.body).not.toContain(id);
  // The control: its own org finds it, so what org A was told is not the truth.
  const own = await callRaw(server.url, method, objects, ownerKeyOfB);
  expect(own.reason ?? "").not.toMatch(/_NOT_FOUND$/);
});

const guarded = publicMethods.filter(({ authz }) => authz.relation !== Relation.ANYONE);

test.each(guarded)("$name: refused without a key, with a revoked one, and without its scope", async (publicMethod) => {
  const body = request(publicMethod, unknownId);
  const without = await callRaw(server.url, publicMethod.method, body, undefined);
  expect(without.reason).toBe("UNAUTHENTICATED");
  const revoked = await callRaw(server.url, publicMethod.method, body, revokedKey);
  expect({ ...revoked, headers: {} }).toEqual({ ...without, headers: {} });
  if (publicMethod.authz.scope === "") return;
  const unscoped = await callRaw(server.url, publicMethod.method, body, unscopedKey);
  expect(unscoped.reason).toBe("SCOPE_MISSING");
});
