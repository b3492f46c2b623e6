import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { ConfigurationError } from "../config/settings.ts";
import { assertClockAgrees } from "./clock.ts";

const log = pino({ level: "silent" });
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

/** Checks a machine whose clock is off by so much. */
function check(offMs: number): Promise<void> {
  return assertClockAgrees({ url: database.url, log, now: () => Date.now() + offMs });
}

test.each([0, 58_000, -58_000])("a clock that is %i ms off will do", (offMs) => check(offMs));

test.each([
  [70_000, /is 70 s ahead of the database's/],
  [-3_600_000, /is 3600 s behind the database's/],
])("a clock that is %i ms off is refused, with how far and what to do", async (offMs, text) => {
  const refused = check(offMs);
  await expect(refused).rejects.toThrow(ConfigurationError);
  await expect(refused).rejects.toThrow(text);
  await expect(refused).rejects.toThrow("synchronise");
});

test("a database that is not there is no excuse", async () => {
  const url = "postgres://cadre:b3ef0d11c6@127.0.0.1:1/cadre";
  await expect(assertClockAgrees({ url, log, waitMs: 0 })).rejects.toMatchObject({ reason: "UNAVAILABLE" });
});
