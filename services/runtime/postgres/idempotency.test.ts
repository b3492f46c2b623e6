import { create } from "@bufbuild/protobuf";
import {
  ApiKeyService,
  IssueKeyRequestSchema,
  IssueKeyResponseSchema,
} from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import fc from "fast-check";
import { type Generated, sql } from "kysely";
import pino from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { AppError } from "../errors/app-error.ts";
import type { Database } from "./database.ts";
import {
  createIdempotencyTable,
  dropIdempotencyTable,
  pruneIdempotency,
  startIdempotencyPruning,
  withIdempotency,
} from "./idempotency.ts";
import { enableOrgSecurity, type Migration, migrate } from "./migrator.ts";
import { openDatabase } from "./open-database.ts";

interface Schema {
  effect: { id: Generated<bigint>; org_id: string; name: string };
  idempotency: { org_id: string; response: Buffer | null; expires_at: Date };
}

const log = pino({ level: "silent" });
const orgId = "01890000-0000-7000-8000-000000000001";
const otherOrgId = "01890000-0000-7000-8000-000000000002";
const method = ApiKeyService.method.issueKey;
const initial: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create table effect (
      id bigint generated always as identity primary key, org_id uuid not null, name text not null
    )`.execute(db);
    await enableOrgSecurity(db, "effect", "sample");
    await createIdempotencyTable(db, "sample");
  },
  down: async (db) => {
    await dropIdempotencyTable(db);
    await sql`drop table effect`.execute(db);
  },
};

let server: TestDatabase;
let database: Database<Schema>;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: [initial], log });
  database = openDatabase<Schema>({ url: server.url, service: "sample", log });
});
afterAll(async () => {
  await database.close();
  await server.drop();
});
beforeEach(async () => {
  await database.engine.deleteFrom("effect").execute();
  await database.engine.deleteFrom("idempotency").execute();
});

/** A call with an effect: a row, and an answer with a secret that differs each time that `work` runs. */
function issue(name: string, key: string, org = orgId, fail?: Error): Promise<string> {
  return database.asOrg(org, async (transaction) => {
    const call = { orgId: org, method, key, request: create(IssueKeyRequestSchema, { name }) };
    const response = await withIdempotency(transaction, call, async () => {
      const { id } = await transaction
        .insertInto("effect")
        .values({ org_id: org, name })
        .returning("id")
        .executeTakeFirstOrThrow();
      if (fail !== undefined) throw fail;
      return create(IssueKeyResponseSchema, { secret: `cdr_secret_${id}` });
    });
    return response.secret;
  });
}

async function effects(): Promise<number> {
  return (await database.engine.selectFrom("effect").select("id").execute()).length;
}

async function reasonOf(call: Promise<unknown>): Promise<string | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    if (error instanceof AppError) return error.reason;
    throw error;
  }
}

describe("a call with an idempotency key", () => {
  test("is executed once and answered the same", async () => {
    const first = await issue("a", "key-1");
    expect(await issue("a", "key-1")).toBe(first);
    expect(await effects()).toBe(1);
  });

  test("is refused when the key comes with another request", async () => {
    await issue("a", "key-1");
    expect(await reasonOf(issue("b", "key-1"))).toBe("IDEMPOTENCY_KEY_REUSED");
    expect(await effects()).toBe(1);
  });

  test("may be repeated after it failed", async () => {
    await expect(issue("a", "key-1", orgId, new Error("broken"))).rejects.toThrow("broken");
    expect(await effects()).toBe(0);
    await issue("a", "key-1");
    expect(await effects()).toBe(1);
  });

  test("is another call in another org", async () => {
    const answers = [await issue("a", "key-1"), await issue("a", "key-1", otherOrgId)];
    expect(new Set(answers).size).toBe(2);
    expect(await effects()).toBe(2);
  });

  test("without a key is executed each time", async () => {
    await issue("a", "");
    await issue("a", "");
    expect(await effects()).toBe(2);
  });

  test("leaves neither the answer's secret nor the key in the database", async () => {
    const secret = await issue("a", "the-callers-key");
    const { rows } = await sql<{ line: string }>`select idempotency::text as line from idempotency`.execute(
      database.engine,
    );
    const stored = rows.map((row) => row.line).join("\n");
    expect(rows).toHaveLength(1);
    for (const hidden of [secret, "the-callers-key"]) {
      expect(stored).not.toContain(hidden);
      expect(stored).not.toContain(Buffer.from(hidden).toString("hex"));
    }
  });

  test("waits for an equal call at work, and says so if that takes too long", async () => {
    const { promise: mayEnd, resolve: end } = Promise.withResolvers<void>();
    const { promise: isAtWork, resolve: atWork } = Promise.withResolvers<void>();
    const request = create(IssueKeyRequestSchema, { name: "slow" });
    const slow = database.asOrg(orgId, (transaction) =>
      withIdempotency(transaction, { orgId, method, key: "key-1", request }, async () => {
        atWork();
        await mayEnd;
        return create(IssueKeyResponseSchema, { secret: "slow" });
      }),
    );
    await isAtWork;
    const impatient = database.asOrg(orgId, async (transaction) => {
      await sql`set local lock_timeout = '100ms'`.execute(transaction);
      const call = { orgId, method, key: "key-1", request };
      return withIdempotency(transaction, call, () => Promise.reject(new Error("executed twice")));
    });
    expect(await reasonOf(impatient)).toBe("IDEMPOTENCY_IN_PROGRESS");
    const waiting = issue("slow", "key-1");
    end();
    await slow;
    expect(await waiting).toBe("slow");
  });
});

test("of any 50 calls at once, each key has one effect, and each equal request its one answer", async () => {
  const calls = fc.array(fc.record({ key: fc.integer({ min: 0, max: 6 }), name: fc.constantFrom("a", "b") }), {
    minLength: 50,
    maxLength: 50,
  });
  let round = 0;
  await fc.assert(
    fc.asyncProperty(calls, async (chosen) => {
      round += 1;
      await database.engine.deleteFrom("effect").execute();
      const outcomes = await Promise.all(
        chosen.map(async ({ key, name }) => {
          try {
            return { key, name, secret: await issue(name, `round ${round} key ${key}`), reason: undefined };
          } catch (error) {
            if (!(error instanceof AppError)) throw error;
            return { key, name, secret: undefined, reason: error.reason };
          }
        }),
      );
      const keys = new Set(chosen.map(({ key }) => key));
      expect(await effects()).toBe(keys.size);
      for (const key of keys) {
        const ofKey = outcomes.filter((outcome) => outcome.key === key);
        const answered = ofKey.filter((outcome) => outcome.secret !== undefined);
        expect(new Set(answered.map((outcome) => outcome.secret)).size).toBe(1);
        const winner = answered[0]?.name;
        for (const outcome of ofKey) {
          const expected = outcome.name === winner ? undefined : "IDEMPOTENCY_KEY_REUSED";
          expect(outcome.reason).toBe(expected);
        }
      }
    }),
    { numRuns: 10 },
  );
});

describe("outdated records", () => {
  test("no longer count", async () => {
    await issue("a", "key-1");
    await database.engine
      .updateTable("idempotency")
      .set({ expires_at: new Date(0) })
      .execute();
    await issue("b", "key-1");
    expect(await effects()).toBe(2);
    expect(await reasonOf(issue("a", "key-1"))).toBe("IDEMPOTENCY_KEY_REUSED");
  });

  test("are removed in bounded batches, others stay", async () => {
    for (let index = 0; index < 5; index++) await issue("a", `key-${index}`);
    await database.engine
      .updateTable("idempotency")
      .set({ expires_at: new Date(0) })
      .execute();
    await issue("a", "fresh");
    expect(await pruneIdempotency(database.engine, 3)).toBe(3);
    expect(await pruneIdempotency(database.engine, 3)).toBe(2);
    expect(await pruneIdempotency(database.engine, 3)).toBe(0);
    expect(await database.engine.selectFrom("idempotency").select("org_id").execute()).toHaveLength(1);
  });

  test("are removed by the pruning that a service starts", async () => {
    await issue("a", "key-1");
    await database.engine
      .updateTable("idempotency")
      .set({ expires_at: new Date(0) })
      .execute();
    await startIdempotencyPruning(database.engine, log)();
    expect(await database.engine.selectFrom("idempotency").select("org_id").execute()).toHaveLength(0);
  });
});
