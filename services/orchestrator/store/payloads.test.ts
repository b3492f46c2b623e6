import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import pino from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { migrateOrchestrator } from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { createFileBlobStore } from "../../runtime/blob/file-blob-store.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { openDatabase } from "../../runtime/postgres/open-database.ts";
import type { Json } from "../domain/json.ts";
import { createPayloads, maxInlineBytes, type Payloads } from "./payloads.ts";
import type { OrchestratorSchema } from "./schema.ts";

const org = toUuid("org", newId("org"));
const other = toUuid("org", newId("org"));
let server: TestDatabase;
let database: Database<OrchestratorSchema>;
let root: string;
let payloads: Payloads;

beforeEach(async () => {
  server = await createTestDatabase();
  await migrateOrchestrator(server.url);
  const log = pino({ level: "silent" }) as Logger;
  database = openDatabase<OrchestratorSchema>({ url: server.url, service: "orchestrator", log, maxConnections: 4 });
  root = await mkdtemp(join(tmpdir(), "cadre payload "));
  payloads = createPayloads(database, await createFileBlobStore(root));
});

afterEach(async () => {
  await database.close();
  await server.drop();
  await rm(root, { recursive: true, force: true });
});

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error: unknown = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof AppError ? `${error.reason}: ${error.message}` : String(error);
}

/** Moves the time at which values were kept into the past, and makes or ends runs, as the superuser. */
async function asSuperuser(statement: string, values: unknown[] = []): Promise<void> {
  const client = new pg.Client(server.url);
  await client.connect();
  await client.query("set search_path = orchestrator");
  await client.query(statement, values);
  await client.end();
}

const files = () => readdir(join(root, "sha256"));
const large: Json = { text: "ä".repeat(maxInlineBytes), list: [1, null, true] };

test("small values stay in their entries, large ones come back from disk", async () => {
  const small: Json = { text: "x".repeat(80_000), deep: [[[1]]] };
  expect(await payloads.keep(org, small)).toEqual({ value: small, blob: undefined });
  expect(await payloads.keep(org, "x".repeat(maxInlineBytes - 100))).toMatchObject({ blob: undefined });
  expect(await files()).toEqual([]);
  const kept = await payloads.keep(org, large);
  expect(kept.blob?.size).toBeGreaterThan(maxInlineBytes);
  expect(await files()).toHaveLength(1);
  expect(await payloads.load(org, { value: undefined, blob: kept.blob })).toEqual(large);
});

test("a value that was changed, is gone, or is another org's is DATA_LOSS and named", async () => {
  const { blob } = await payloads.keep(org, large);
  const payload = { value: undefined, blob };
  const digest = `sha256:${Buffer.from(blob?.sha256 ?? []).toString("hex")}`;
  expect(await reasonOf(payloads.load(other, payload))).toBe(`DATA_LOSS: the blob ${digest} is gone`);
  const path = join(root, "sha256", (await files())[0] ?? "");
  const bytes = await readFile(path);
  bytes[1_000] = (bytes[1_000] ?? 0) ^ 1;
  await writeFile(path, bytes);
  expect(await reasonOf(payloads.load(org, payload))).toBe(`DATA_LOSS: the blob ${digest} is damaged`);
  await rm(path);
  expect(await reasonOf(payloads.load(org, payload))).toBe(`DATA_LOSS: the blob ${digest} is gone`);
});

test("a value is collected when the runs of its time are gone, and its file with the last org's", async () => {
  const { blob } = await payloads.keep(org, large);
  await payloads.keep(other, large);
  expect(await payloads.collect(10)).toBe(0);
  await asSuperuser("update blob set kept_at = kept_at - interval '3 hours'");
  const run = toUuid("run", newId("run"));
  await asSuperuser(
    `insert into run (run_id, org_id, root_id, shard, view, created_at)
      values ($1, $2, $1, 0, '', clock_timestamp() - interval '4 hours')`,
    [run, org],
  );
  expect(await payloads.collect(10)).toBe(1);
  expect(await files()).toHaveLength(1);
  expect(await payloads.load(org, { value: undefined, blob })).toEqual(large);
  await asSuperuser("delete from run where run_id = $1", [run]);
  expect(await payloads.collect(10)).toBe(1);
  expect(await files()).toEqual([]);
});

test("what is kept while its equal is collected stays", async () => {
  for (let round = 0; round < 20; round += 1) {
    const { blob } = await payloads.keep(org, large);
    await asSuperuser("update blob set kept_at = kept_at - interval '3 hours'");
    await Promise.all([payloads.collect(10), payloads.keep(round % 2 === 0 ? org : other, large)]);
    expect(await payloads.load(round % 2 === 0 ? org : other, { value: undefined, blob })).toEqual(large);
  }
});
