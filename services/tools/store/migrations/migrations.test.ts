import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../../test/support/postgres.ts";
import { describeSchema, migrate, migrateDown, migrationStatus } from "../../../runtime/postgres/migrator.ts";
import { migrations } from "./index.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

test("the schema goes up, down without a rest, and up again the same", async () => {
  const options = { url: database.url, service: "tools", migrations, log: pino({ level: "silent" }) };
  await migrate(options);
  const first = await describeSchema(database.url, "tools");
  expect(await migrateDown({ ...options, to: "" })).toEqual([
    "0004-groups",
    "0003-retry",
    "0002-heartbeat",
    "0001-initial",
  ]);
  await migrate(options);
  expect(await describeSchema(database.url, "tools")).toEqual(first);
  expect(await migrationStatus(options)).toMatchObject({ unknown: [], edited: [], drift: [] });
});
