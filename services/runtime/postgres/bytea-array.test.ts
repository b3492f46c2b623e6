import fc from "fast-check";
import { sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { byteaArray } from "./bytea-array.ts";
import type { Database } from "./database.ts";
import { migrate } from "./migrator.ts";
import { openDatabase } from "./open-database.ts";

let created: TestDatabase;
let database: Database<Record<never, never>>;

beforeAll(async () => {
  const log = pino({ level: "silent" });
  created = await createTestDatabase();
  await migrate({ url: created.url, service: "sample", migrations: [], log });
  database = openDatabase({ url: created.url, service: "sample", log });
});

afterAll(async () => {
  await database.close();
  await created.drop();
});

test("PostgreSQL reads the values that were given, in their order, also none and empty ones", async () => {
  const value = fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.constantFrom(new Uint8Array(), null));
  await fc.assert(
    fc.asyncProperty(fc.array(value, { maxLength: 20 }), async (values) => {
      const { rows } = await sql<{ place: string; value: Buffer | null }>`
        select place, value from unnest(${byteaArray(values)}::bytea[]) with ordinality x(value, place)
        order by place`.execute(database.engine);
      expect(rows.map((row) => row.value && [...row.value])).toEqual(values.map((each) => each && [...each]));
      expect(rows.map(({ place }) => Number(place))).toEqual(values.map((_, index) => index + 1));
    }),
    { numRuns: 100 },
  );
});
