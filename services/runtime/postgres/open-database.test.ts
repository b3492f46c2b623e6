import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { type Generated, sql } from "kysely";
import pg from "pg";
import pino from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { AppError } from "../errors/app-error.ts";
import type { Database } from "./database.ts";
import { isOutcomeUnknown, isUniqueViolation } from "./database-error.ts";
import { enableOrgSecurity, type Migration, migrate } from "./migrator.ts";
import { openDatabase } from "./open-database.ts";

interface Schema {
  note: { id: Generated<bigint>; org_id: string; text: string };
  open_note: { id: Generated<bigint>; org_id: string; text: string };
}

const log = pino({ level: "silent" });
const [orgA, orgB] = ["01890000-0000-7000-8000-00000000000a", "01890000-0000-7000-8000-00000000000b"];
const initial: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    for (const table of ["note", "open_note"]) {
      await sql`create table ${sql.table(table)} (
        id bigint generated always as identity primary key, org_id uuid not null, text text not null unique
      )`.execute(db);
    }
    await enableOrgSecurity(db, "note", "sample");
    await sql`create function peek() returns bigint language sql security definer set search_path = sample, pg_temp
      as 'select count(*) from note'`.execute(db);
  },
  down: async (db) => {
    await sql`drop function peek`.execute(db);
    await sql`drop table note, open_note`.execute(db);
  },
};

let server: TestDatabase;
let database: Database<Schema>;
/** Looks on as the superuser-like owner of the database. */
let admin: pg.Client;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrate({ url: server.url, service: "sample", migrations: [initial], log });
  database = openDatabase<Schema>({ url: server.url, service: "sample", log, maxConnections: 4 });
  admin = new pg.Client(server.url);
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await database.close();
  await server.drop();
});
beforeEach(async () => {
  await database.engine.deleteFrom("note").execute();
  await database.engine.deleteFrom("open_note").execute();
});

function add(org: string, table: "note" | "open_note", text: string): Promise<unknown> {
  return database.asOrg(org, (transaction) => transaction.insertInto(table).values({ org_id: org, text }).execute());
}

function texts(org: string, table: "note" | "open_note"): Promise<string[]> {
  return database.asOrg(org, async (transaction) => {
    const rows = await transaction.selectFrom(table).select("text").orderBy("text").execute();
    return rows.map(({ text }) => text);
  });
}

describe("row-level security", () => {
  test("shows an org its own rows only", async () => {
    await add(orgA, "note", "a");
    await add(orgB, "note", "b");
    expect(await texts(orgA, "note")).toEqual(["a"]);
    expect(await texts(orgB, "note")).toEqual(["b"]);
  });

  test("is what hides them: a table without it shows all (control)", async () => {
    await add(orgA, "open_note", "a");
    await add(orgB, "open_note", "b");
    expect(await texts(orgA, "open_note")).toEqual(["a", "b"]);
  });

  test("lets an org neither write, change nor remove another's rows", async () => {
    await add(orgB, "note", "b");
    const intruding = database.asOrg(orgA, (transaction) =>
      transaction.insertInto("note").values({ org_id: orgB, text: "forged" }).execute(),
    );
    await expect(intruding).rejects.toMatchObject({ code: "42501" });
    await database.asOrg(orgA, async (transaction) => {
      await transaction.updateTable("note").set({ text: "changed" }).execute();
      await transaction.deleteFrom("note").execute();
    });
    const moving = database.asOrg(orgB, (transaction) =>
      transaction.updateTable("note").set({ org_id: orgA }).execute(),
    );
    await expect(moving).rejects.toMatchObject({ code: "42501" });
    expect(await texts(orgB, "note")).toEqual(["b"]);
  });

  test("refuses without an org, and an org does not outlive its transaction", async () => {
    await add(orgA, "note", "a");
    const client = new pg.Client({
      connectionString: server.url,
      options: "-c role=cadre_sample_app -c search_path=sample",
    });
    await client.connect();
    await expect(client.query("select * from note")).rejects.toMatchObject({ code: "42704" });
    await client.query(`begin; select set_config('app.org', '${orgA}', true); commit`);
    await expect(client.query("select * from note")).rejects.toMatchObject({ code: "22P02" });
    await client.end();
  });

  test("does not bind the engine", async () => {
    await add(orgA, "note", "a");
    await add(orgB, "note", "b");
    expect(await database.engine.selectFrom("note").select("text").orderBy("text").execute()).toHaveLength(2);
  });

  test("cannot be passed by functions that run as their owner: those are the engine's", async () => {
    const peeking = database.asOrg(orgA, (transaction) => sql`select peek()`.execute(transaction));
    await expect(peeking).rejects.toMatchObject({ code: "42501" });
    await sql`select peek()`.execute(database.engine);
  });

  test("cannot be switched off by the URL", async () => {
    await add(orgB, "note", "b");
    const url = new URL(server.url);
    url.searchParams.set("options", "-c role=cadre_sample_engine -c row_security=off");
    const tricked = openDatabase<Schema>({ url: url.href, service: "sample", log });
    const rows = tricked.asOrg(orgA, (transaction) => transaction.selectFrom("note").selectAll().execute());
    // PostgreSQL would rather fail than leave rows out when `row_security` is off.
    await expect(rows).rejects.toMatchObject({ code: "42501" });
    await tricked.close();
  });

  test("an org that is no UUID never reaches SQL", async () => {
    await expect(database.asOrg("' or true --", () => Promise.resolve())).rejects.toThrow(TypeError);
  });
});

describe("a transaction of an org", () => {
  test("is undone when its work throws", async () => {
    const failing = database.asOrg(orgA, async (transaction) => {
      await transaction.insertInto("note").values({ org_id: orgA, text: "a" }).execute();
      throw new Error("no");
    });
    await expect(failing).rejects.toThrow("no");
    expect(await texts(orgA, "note")).toEqual([]);
  });

  test("keeps its org among many others at once", async () => {
    const orgs = Array.from({ length: 40 }, (_, index) => `01890000-0000-7000-8000-${String(index).padStart(12, "0")}`);
    await Promise.all(orgs.map((org) => add(org, "note", org)));
    const seen = await Promise.all(orgs.map((org) => texts(org, "note")));
    expect(seen).toEqual(orgs.map((org) => [org]));
  });

  test("of another org may run inside", async () => {
    await add(orgB, "note", "b");
    const inner = await database.asOrg(orgA, async (transaction) => {
      const found = await texts(orgB, "note");
      await transaction.insertInto("note").values({ org_id: orgA, text: "a" }).execute();
      return found;
    });
    expect(inner).toEqual(["b"]);
    expect(await texts(orgA, "note")).toEqual(["a"]);
  });

  test("tells which constraint refused a row", async () => {
    await add(orgA, "note", "a");
    const error = await add(orgA, "note", "a").catch((thrown: unknown) => thrown);
    expect(isUniqueViolation(error, "note_text_key")).toBe(true);
    expect(isUniqueViolation(error, "other")).toBe(false);
  });

  test("gives and takes bigint, bytes and times", async () => {
    const at = new Date("2026-01-02T03:04:05.678Z");
    const { rows } = await sql`select ${2n ** 60n}::bigint as big, ${Buffer.from([0, 255])}::bytea as bytes,
      ${at}::timestamptz as at, ${[1n, 2n]}::bigint[] as list`.execute(database.engine);
    expect(rows).toEqual([{ big: 2n ** 60n, bytes: Buffer.from([0, 255]), at, list: ["1", "2"] }]);
  });
});

describe("limits", () => {
  test("each connection carries them", async () => {
    const names = [
      "statement_timeout",
      "lock_timeout",
      "idle_in_transaction_session_timeout",
      "TimeZone",
      "search_path",
    ];
    const { rows } = await sql<{ value: string }>`
      select current_setting(name) as value from unnest(${names}::text[]) with ordinality u(name, i) order by i`.execute(
      database.engine,
    );
    expect(rows.map(({ value }) => value)).toEqual(["15s", "5s", "10s", "UTC", "sample"]);
    const { rows: durable } = await sql`show synchronous_commit`.execute(database.engine);
    expect(durable).toEqual([{ synchronous_commit: "on" }]);
  });

  test("a statement that takes too long is UNAVAILABLE, and the connection lives on", async () => {
    const slow = database.asOrg(orgA, async (transaction) => {
      await sql`set local statement_timeout = 50`.execute(transaction);
      await sql`select pg_sleep(5)`.execute(transaction);
    });
    await expect(slow).rejects.toMatchObject({ reason: "UNAVAILABLE", retryAfterMs: 1_000 });
    expect(await texts(orgA, "note")).toEqual([]);
  });

  test("more than the pool holds waits for its turn", async () => {
    await Promise.all(Array.from({ length: 30 }, (_, index) => add(orgA, "note", String(index))));
    expect(await texts(orgA, "note")).toHaveLength(30);
    // Of this database alone: other tests have theirs on the same server.
    const { rows } = await admin.query(
      "select from pg_stat_activity where application_name like 'cadre sample %' and datname = current_database()",
    );
    expect(rows.length).toBeLessThanOrEqual(8);
  });
});

describe("a connection that breaks", () => {
  const kill = () =>
    admin.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where application_name like 'cadre sample %' and datname = current_database()`,
    );

  test("fails what was under way as UNAVAILABLE with an unknown outcome, and nothing after it", async () => {
    const { promise: begun, resolve } = Promise.withResolvers<void>();
    const cut = database
      .asOrg(orgA, async (transaction) => {
        await transaction.insertInto("note").values({ org_id: orgA, text: "a" }).execute();
        resolve();
        await sql`select pg_sleep(10)`.execute(transaction);
      })
      .catch((error: unknown) => error);
    await begun;
    await kill();
    const error = await cut;
    expect(error).toBeInstanceOf(AppError);
    expect(error).toMatchObject({ reason: "UNAVAILABLE" });
    expect(isOutcomeUnknown(error)).toBe(true);
    await expect.poll(() => texts(orgA, "note").catch(() => undefined)).toEqual([]);
  });

  test("while idle is replaced", async () => {
    await texts(orgA, "note");
    await kill();
    await expect.poll(() => texts(orgA, "note").catch(() => undefined)).toEqual([]);
  });
});

describe("a database that is not there", () => {
  let away: Database<Schema>;
  beforeEach(() => {
    away = openDatabase<Schema>({ url: "postgres://nobody@127.0.0.1:1/none", service: "sample", log });
  });
  afterEach(() => away.close());

  test("is UNAVAILABLE with a time to wait, and known not to have done anything", async () => {
    for (let attempt = 0; attempt < 3; attempt++) {
      const error = await away.engine
        .selectFrom("note")
        .selectAll()
        .execute()
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ reason: "UNAVAILABLE" });
      expect((error as AppError).retryAfterMs).toBeGreaterThan(0);
      expect(isOutcomeUnknown(error)).toBe(false);
    }
  });

  test("is said by its dependency, which never rejects", async () => {
    expect(await away.dependency.check()).toMatchObject({ state: ServingState.NOT_SERVING });
    expect(await database.dependency.check()).toEqual({ state: ServingState.SERVING, detail: "" });
  });
});

describe("listening", () => {
  test("hears what is notified, on its channel only, until it ends", async () => {
    const heard: string[] = [];
    let connects = 0;
    const end = await database.listen(
      "sample_note",
      (payload) => heard.push(payload),
      () => (connects += 1),
    );
    await expect.poll(() => connects).toBe(1);
    await admin.query("notify sample_note, 'one'; notify sample_other, 'two'; notify sample_note, 'three'");
    await expect.poll(() => heard).toEqual(["one", "three"]);
    await end();
    await admin.query("notify sample_note, 'four'");
    // A second subscription hears what comes after the fourth, so the fourth had its chance.
    const later: string[] = [];
    const endLater = await database.listen(
      "sample_note",
      (payload) => later.push(payload),
      () => (connects += 1),
    );
    await expect.poll(() => connects).toBe(2);
    await admin.query("notify sample_note, 'five'");
    await expect.poll(() => later).toEqual(["five"]);
    expect(heard).toEqual(["one", "three"]);
    await endLater();
  });

  test("comes back by itself after a break, and says so", async () => {
    const heard: string[] = [];
    let connects = 0;
    const end = await database.listen(
      "sample_back",
      (payload) => heard.push(payload),
      () => (connects += 1),
    );
    await expect.poll(() => connects).toBe(1);
    await admin.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'cadre sample %' and datname = current_database()",
    );
    await expect.poll(() => connects).toBe(2);
    await admin.query("notify sample_back, 'again'");
    await expect.poll(() => heard).toEqual(["again"]);
    await end();
  });

  test("takes no channel that is not a plain name", async () => {
    await expect(
      database.listen(
        "a; drop table note",
        () => undefined,
        () => undefined,
      ),
    ).rejects.toThrow(TypeError);
  });
});
