import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { loadOrMakeKeyFile } from "../runtime/identity/key-file.ts";
import type { Database } from "../runtime/postgres/database.ts";
import { migrate, migrateDown } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import { type FirstKey, firstStart } from "./app/first-start.ts";
import { migrations } from "./store/migrations/index.ts";
import type { CredentialsSchema } from "./store/schema.ts";

const log = pino({ level: "silent" });
let testDatabase: TestDatabase;
let database: Database<CredentialsSchema>;
let directory: string;
beforeEach(async () => {
  testDatabase = await createTestDatabase();
  directory = mkdtempSync(join(tmpdir(), "first-start-"));
  await migrate({ url: testDatabase.url, service: "credentials", migrations, log });
  database = openDatabase({ url: testDatabase.url, service: "credentials", log });
});
afterEach(async () => {
  await database.close();
  await testDatabase.drop();
  rmSync(directory, { recursive: true });
});

const keyFile = (): string => join(directory, "admin.key");
const start = (hmacKey = loadOrMakeKeyFile(join(directory, "hmac.key"))): Promise<FirstKey | undefined> =>
  firstStart({ database, environment: "dev", hmacKey }, { keyFile: keyFile(), keyExpiresAt: null });

test("two starts make one key, told once", async () => {
  const first = await start();
  expect(readFileSync(keyFile(), "utf8").trim()).toBe(first?.secret);
  expect(await start()).toBeUndefined();
  expect(await database.engine.selectFrom("api_key").select("name").execute()).toHaveLength(1);
});

test("many starts at once make one key, and the file holds that one", async () => {
  const keys = (await Promise.all(Array.from({ length: 6 }, () => start()))).filter((key) => key !== undefined);
  expect(keys).toHaveLength(1);
  expect(readFileSync(keyFile(), "utf8").trim()).toBe(keys[0]?.secret);
  expect(await database.engine.selectFrom("org").select("name").execute()).toEqual([{ name: "default" }]);
});

test("a file that was lost is not made again", async () => {
  await start();
  rmSync(keyFile());
  expect(await start()).toBeUndefined();
  expect(existsSync(keyFile())).toBe(false);
});

test("another server key than the stored keys were made with is refused by name", async () => {
  await start();
  await expect(start(Buffer.alloc(32, 7))).rejects.toThrow(/CADRE_CREDENTIALS_HMAC_KEY_FILE/);
});

test("a file that cannot be written leaves no key behind, and the next start makes one", async () => {
  const hmacKey = loadOrMakeKeyFile(join(directory, "hmac.key"));
  const blocked = firstStart(
    { database, environment: "dev", hmacKey },
    { keyFile: join(directory, "hmac.key", "admin.key"), keyExpiresAt: null },
  );
  await expect(blocked).rejects.toThrow();
  expect(await database.engine.selectFrom("api_key").select("name").execute()).toEqual([]);
  expect(await start()).toBeDefined();
});

test("the schema goes down and up again", async () => {
  await database.close();
  await migrateDown({ url: testDatabase.url, service: "credentials", migrations, log, to: "" });
  await migrate({ url: testDatabase.url, service: "credentials", migrations, log });
  database = openDatabase({ url: testDatabase.url, service: "credentials", log });
  expect(await start()).toBeDefined();
});
