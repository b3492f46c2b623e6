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
  const options = { url: database.url, service: "registry", migrations, log: pino({ level: "silent" }) };
  await migrate(options);
  const first = await describeSchema(database.url, "registry");
  expect(await migrateDown({ ...options, to: "" })).toEqual([
    "0005-field-read",
    "0004-review",
    "0003-origin",
    "0002-forced",
    "0001-initial",
  ]);
  await migrate(options);
  expect(await describeSchema(database.url, "registry")).toEqual(first);
  expect(await migrationStatus(options)).toMatchObject({ unknown: [], edited: [], drift: [] });
});
