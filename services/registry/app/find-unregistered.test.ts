import { randomUUID } from "node:crypto";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { migrate } from "../../runtime/postgres/migrator.ts";
import { openDatabase } from "../../runtime/postgres/open-database.ts";
import type { Contract } from "../domain/contract-set.ts";
import { migrations } from "../store/migrations/index.ts";
import { PostgresRegistryStore } from "../store/postgres-registry-store.ts";
import type { RegistrySchema } from "../store/schema.ts";
import { deleteSubject } from "./delete-versions.ts";
import { findUnregistered } from "./find-unregistered.ts";
import { pushContracts } from "./push-contracts.ts";

let server: TestDatabase;
let database: Database<RegistrySchema>;
let store: PostgresRegistryStore;
beforeAll(async () => {
  const log = pino({ level: "silent" });
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "registry", migrations, log });
  database = openDatabase<RegistrySchema>({ url: server.url, service: "registry", log });
  store = new PostgresRegistryStore(database);
}, 60_000);
afterAll(async () => {
  await database.close();
  await server.drop();
});

function contract(path: string, body: string, imports: readonly string[] = [], subjects: readonly string[] = []) {
  const lines = imports.map((name) => `import "${name}";`).join(" ");
  return { path, schema: `syntax = "proto3"; package p; ${lines} ${body}`, imports, subjects } satisfies Contract;
}

test("what is registered in any version is found, whatever is pushed after it", async () => {
  const orgId = randomUUID();
  const known = new Map<string, Uint8Array>();
  const find = (...contracts: Contract[]) => findUnregistered({ store }, known, orgId, contracts);
  const push = (...contracts: Contract[]) =>
    pushContracts({ store, limits: { get: async () => 1_000 } }, { orgId, subject: "key_test" }, contracts);
  const base = contract("base.proto", "message Base {}");
  const user = contract("user.proto", "message User { Base base = 1; }", [base.path], ["topic-value"]);
  const nothing = { absent: [], different: [] };

  expect(await find(base, user)).toEqual({ absent: ["base.proto", "user.proto", "topic-value"], different: [] });
  await push(base);
  expect(await find(base, user)).toEqual({ absent: ["user.proto", "topic-value"], different: [] });
  await push(base, user);
  expect(await find(base, user)).toEqual(nothing);

  const grown = contract(base.path, "message Base { string id = 1; }");
  const other = contract("other.proto", "message Other {}");
  expect(await find(grown, user, other)).toEqual({ absent: ["other.proto"], different: ["base.proto"] });
  await push(grown, user);
  expect(await find(grown, user)).toEqual(nothing);
  expect(await find(base, user)).toEqual(nothing);

  // What was compiled before is no proof that it is still there.
  await deleteSubject({ store }, orgId, "topic-value", false);
  expect(await find(grown, user)).toEqual({ absent: ["topic-value"], different: [] });
  expect((await findUnregistered({ store }, known, randomUUID(), [base])).absent).toEqual(["base.proto"]);
});
