import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Cadre, ContractState, createCadre, ReviewState } from "@cadre/sdk";
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";

// A push that breaks waits for somebody who may force it: by the CLI, and its rules by the SDK.
vi.setConfig({ testTimeout: 120_000 });

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
const home = mkdtempSync(join(tmpdir(), "cadre reviews "));
const proto = join(home, "proto");
let database: TestDatabase;
let server: RunningCadre;
let owner: Cadre;
let developerKey = "";
let adminKey = "";
beforeAll(async () => {
  database = await createTestDatabase();
  server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url } });
  owner = as(server.adminKey);
  developerKey = (await owner.keys.issue({ name: "dev", scopes: ["registry.*"], role: "developer" })).secret;
  adminKey = (await owner.keys.issue({ name: "admin", scopes: ["registry.*"], role: "admin" })).secret;
}, 90_000);
afterAll(async () => {
  await server.dispose();
  await database.drop();
  rmSync(home, { recursive: true, force: true });
});

const as = (apiKey: string): Cadre => createCadre({ baseUrl: server.url, apiKey });

function contracts(args: readonly string[], key: string) {
  const flags = ["--url", server.url, "--api-key", key];
  return runProgram(process.execPath, [program, "contracts", ...args, ...flags], { timeoutMs: 60_000 });
}

function write(path: string, text: string): void {
  mkdirSync(dirname(join(proto, path)), { recursive: true });
  writeFileSync(join(proto, path), text);
}

/** A set of one file whose only field is `field`. */
const fileOf = (name: string, field: string) => [
  {
    path: `${name}/v1/${name}.proto`,
    schema: `syntax = "proto3"; package ${name}.v1; message M { ${field} }`,
    imports: [],
  },
];

test("a push that breaks is asked for by a developer, shown, and registered as it was by an admin", async () => {
  const first = {
    path: "r/v1/order.proto",
    schema: 'syntax = "proto3"; package r.v1; message Order { string id = 1; }',
  };
  await as(developerKey).contracts.push([{ ...first, imports: [] }]);
  const next = 'syntax = "proto3"; package r.v1; message Order { int64 id = 1; } // the second';
  write("r/v1/order.proto", next);
  const asked = await contracts(["push", proto, "--review", "--reason", "ids are numbers now"], developerKey);
  const broken = "r.v1.Order: field 1 (id): its type was string and is int64 (FIELD_WIRE_COMPATIBLE_TYPE)";
  expect([asked.code, asked.stdout]).toEqual([0, expect.stringContaining(broken)]);
  const reviewId = /^review (rev_\w{26})$/m.exec(asked.stdout)?.[1] ?? "";
  const files = [{ path: "r/v1/order.proto", schema: next, imports: [] }];
  const again = await as(adminKey).contracts.reviews.request(files, "another reason");
  expect(again).toMatchObject({ reviewId, reason: "ids are numbers now" });
  expect((await owner.contracts.history("r/v1/order.proto")).map(({ version }) => version)).toEqual([1]);

  expect(await as(developerKey).contracts.reviews.list({ state: "open" })).toMatchObject([
    { reviewId, brokenSubjects: ["r/v1/order.proto"] },
  ]);
  const shown = await contracts(["reviews", "show", reviewId], adminKey);
  expect(shown.stdout).toContain(broken);
  expect((await as(adminKey).contracts.reviews.file(reviewId, "r/v1/order.proto")).schema).toBe(next);

  await expect(as(developerKey).contracts.reviews.approve(reviewId)).rejects.toMatchObject({ reason: "ROLE_TOO_LOW" });
  const approved = await contracts(["reviews", "approve", reviewId, "--reason", "seen"], adminKey);
  expect([approved.code, approved.stdout]).toEqual([
    0,
    expect.stringMatching(/^r\/v1\/order\.proto: version 2, id \d+\ndigest sha256:/),
  ]);
  const { review } = await owner.contracts.reviews.get(reviewId);
  const [, second] = await owner.contracts.history("r/v1/order.proto");
  expect(second).toMatchObject({
    reviewId,
    forcedReason: "ids are numbers now",
    requestedBy: review.requestedBy,
    registeredBy: review.decidedBy,
    setDigest: review.digest,
  });
  expect(review).toMatchObject({ state: ReviewState.APPROVED, decisionReason: "seen" });
  expect(review.requestedBy).not.toBe(review.decidedBy);
  expect((await owner.contracts.push(files)).contracts).toMatchObject([{ state: ContractState.SAME }]);
  const audit = async (type: string) => {
    const answer = await fetch(`${server.url}/v1/audit?type=${type}`, {
      headers: { authorization: `Bearer ${server.adminKey}` },
    });
    return ((await answer.json()) as { events: { resource: string; reason: string; actor: string }[] }).events;
  };
  expect(await audit("schema.forced")).toMatchObject([
    { resource: "subject/r/v1/order.proto", reason: "ids are numbers now", actor: review.decidedBy },
  ]);
  expect(await audit("contracts.review_approved")).toMatchObject([
    { resource: `review/${reviewId}`, actor: review.decidedBy },
  ]);
  expect(await audit("contracts.review_requested")).not.toEqual([]);
});

test("a rejection needs a reason, registers nothing, and is in the subject's history", async () => {
  const next = fileOf("no", "int64 id = 1;");
  const developer = as(developerKey).contracts;
  await developer.push(fileOf("no", "string id = 1;"));
  const { reviewId } = await developer.reviews.request(next, "why not");
  await expect(developer.reviews.reject(reviewId, "mine")).rejects.toMatchObject({ reason: "ROLE_TOO_LOW" });
  expect((await contracts(["reviews", "reject", reviewId, "--reason", "ids are texts"], adminKey)).code).toBe(0);
  const admin = as(adminKey).contracts;
  const closed = { reason: "REVIEW_CLOSED", message: "the review was rejected before" };
  await expect(admin.reviews.approve(reviewId)).rejects.toMatchObject(closed);
  await expect(admin.reviews.reject(reviewId, "again")).rejects.toMatchObject(closed);
  await expect(admin.reviews.file(reviewId, "no/v1/no.proto")).rejects.toMatchObject(closed);
  const history = await contracts(["history", "no/v1/no.proto"], developerKey);
  expect(history.stdout).toMatch(/^1 .*\n.*\nrev_\w+ +rejected .* why not +ids are texts$/m);
  // Asked for anew it is another one.
  expect((await developer.reviews.request(next, "still")).reviewId).not.toBe(reviewId);
});

test("who asked cannot approve, whatever the role; a stale review, an expired and an unknown one register nothing", async () => {
  const admin = as(adminKey).contracts;
  await admin.push(fileOf("st", "string id = 1;"));
  await expect(admin.reviews.request(fileOf("st", "string id = 1; string more = 2;"), "x")).rejects.toMatchObject({
    reason: "INVALID_ARGUMENT",
    message: "the contracts break nothing: push them",
  });
  const next = fileOf("st", "int64 id = 1;");
  const first = await admin.reviews.request(next, "x");
  await expect(admin.reviews.approve(first.reviewId)).rejects.toMatchObject({ reason: "REVIEW_OWN" });

  // Somebody registers another version meanwhile.
  await admin.push(fileOf("st", "string id = 1; string more = 2;"));
  await expect(owner.contracts.reviews.approve(first.reviewId)).rejects.toMatchObject({
    reason: "REVIEW_STALE",
    message: "st/v1/st.proto: not what it was when the review was asked for; push again with a review",
  });
  expect((await owner.contracts.history("st/v1/st.proto")).map(({ version }) => version)).toEqual([1, 2]);
  const second = await admin.reviews.request(next, "y");
  expect(second.reviewId).not.toBe(first.reviewId);
  expect((await admin.reviews.get(second.reviewId)).contracts).toMatchObject([{ baseVersion: 2, version: 3 }]);
  await expect(admin.reviews.get(first.reviewId)).rejects.toMatchObject({ reason: "REVIEW_NOT_FOUND" });

  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query("update registry.review set expires_at = clock_timestamp() where digest = $1", [second.digest]);
  await client.end();
  await expect(owner.contracts.reviews.approve(second.reviewId)).rejects.toMatchObject({
    reason: "REVIEW_CLOSED",
    message: "the review has expired",
  });
  expect(await admin.reviews.list({ state: "expired", subject: "st/v1/st.proto" })).toMatchObject([
    { reviewId: second.reviewId, state: ReviewState.EXPIRED },
  ]);
  const third = await admin.reviews.request(next, "z");
  // Two approvals at once: one registers, the other finds it closed.
  const outcomes = await Promise.allSettled([
    owner.contracts.reviews.approve(third.reviewId),
    owner.contracts.reviews.approve(third.reviewId),
  ]);
  expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  expect((await owner.contracts.history("st/v1/st.proto")).map(({ version }) => version)).toEqual([1, 2, 3]);
});

test("an org has a bounded number of open reviews", async () => {
  const { contracts: own } = await otherOrg();
  await own.push(Array.from({ length: 21 }, (_, index) => fileOf(`b${index}`, "string id = 1;")).flat());
  for (let index = 0; index < 20; index++) await own.reviews.request(fileOf(`b${index}`, "int64 id = 1;"), "x");
  await expect(own.reviews.request(fileOf("b20", "int64 id = 1;"), "x")).rejects.toMatchObject({
    reason: "LIMIT_EXCEEDED",
    message: "20 reviews are open: have them decided first",
  });
  expect(await own.reviews.list({ state: "open" })).toHaveLength(20);
});

async function otherOrg(): Promise<Cadre> {
  const made = await fetch(`${server.url}/v1/orgs`, {
    method: "POST",
    headers: { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" },
    body: JSON.stringify({ name: "bounded" }),
  });
  return as(((await made.json()) as { secret: string }).secret);
}
