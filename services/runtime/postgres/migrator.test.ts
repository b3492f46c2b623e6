import { sql } from "kysely";
import pg from "pg";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { createIdempotencyTable, dropIdempotencyTable } from "./idempotency.ts";
import {
  checksumOf,
  describeSchema,
  enableOrgSecurity,
  type Migration,
  migrateDown,
  migrateUp,
  migrationStatus,
} from "./migrator.ts";

const log = pino({ level: "silent" });
const service = "sample";

const initial: Migration = {
  name: "0001-initial",
  destructive: false,
  up: async (db) => {
    await sql`create type mood as enum ('good', 'bad')`.execute(db);
    await sql`create table note (
      id bigint generated always as identity primary key,
      org_id uuid not null,
      text text not null default '',
      mood mood not null default 'good' check (mood <> 'bad' or text <> '')
    )`.execute(db);
    await sql`create index note_text on note (text) where text <> ''`.execute(db);
    await sql`create function note_count() returns bigint language sql as 'select count(*) from note'`.execute(db);
    await enableOrgSecurity(db, "note", service);
    await createIdempotencyTable(db, service);
  },
  down: async (db) => {
    await dropIdempotencyTable(db);
    await sql`drop function note_count`.execute(db);
    await sql`drop table note`.execute(db);
    await sql`drop type mood`.execute(db);
  },
};
const label: Migration = {
  name: "0002-label",
  destructive: false,
  up: async (db) => {
    await sql`alter table note add column label text`.execute(db);
  },
  down: async (db) => {
    await sql`alter table note drop column label`.execute(db);
  },
};
const dropText: Migration = {
  name: "0003-drop-text",
  destructive: true,
  up: async (db) => {
    await sql`drop table idempotency`.execute(db);
  },
  down: async (db) => {
    await createIdempotencyTable(db, service);
  },
};

let database: TestDatabase;
beforeEach(async () => {
  database = await createTestDatabase();
});
afterEach(() => database.drop());

function options(...migrations: readonly Migration[]) {
  return { url: database.url, service, migrations, log };
}

async function execute(statement: string): Promise<void> {
  const client = new pg.Client(database.url);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

test("up, down, up again leaves the same schema at every step", async () => {
  const all = options(initial, label, dropText);
  expect(await migrateUp(options(initial))).toEqual(["0001-initial"]);
  const one = await describeSchema(database.url, service);
  expect(await migrateUp(options(initial, label))).toEqual(["0002-label"]);
  const two = await describeSchema(database.url, service);
  expect(await migrateUp({ ...all, allowDestructive: true })).toEqual(["0003-drop-text"]);
  const three = await describeSchema(database.url, service);
  expect(new Set([one, two, three].map((lines) => lines.join("\n"))).size).toBe(3);

  expect(await migrateDown(all)).toEqual(["0003-drop-text"]);
  expect(await describeSchema(database.url, service)).toEqual(two);
  expect(await migrateDown({ ...all, to: "0001-initial" })).toEqual(["0002-label"]);
  expect(await describeSchema(database.url, service)).toEqual(one);
  expect(await migrateDown({ ...all, to: "" })).toEqual(["0001-initial"]);
  expect(await describeSchema(database.url, service)).toEqual([]);

  await migrateUp({ ...all, allowDestructive: true });
  expect(await describeSchema(database.url, service)).toEqual(three);
  expect(await migrateUp(all)).toEqual([]);
});

test("a step that fails leaves nothing of itself", async () => {
  const broken: Migration = {
    ...label,
    up: async (db) => {
      await label.up(db);
      await sql`create table note (id int)`.execute(db);
    },
  };
  await expect(migrateUp(options(initial, broken))).rejects.toMatchObject({ code: "42P07" });
  const status = await migrationStatus(options(initial, broken));
  expect(status.migrations.map(({ name, appliedAt }) => [name, appliedAt !== undefined])).toEqual([
    ["0001-initial", true],
    ["0002-label", false],
  ]);
  expect(status.drift).toEqual([]);
});

test("a step whose down does not undo it is refused, and stays applied", async () => {
  const lossy: Migration = { ...label, down: async () => undefined };
  await migrateUp(options(initial, lossy));
  await expect(migrateDown(options(initial, lossy))).rejects.toThrow(/does not restore[\s\S]*column note\.label/);
  expect((await migrationStatus(options(initial, lossy))).migrations[1]?.appliedAt).toBeInstanceOf(Date);
});

describe("a destructive step", () => {
  test("wants leave where there is something to lose", async () => {
    await migrateUp(options(initial));
    await expect(migrateUp(options(initial, label, dropText))).rejects.toThrow(/0003-drop-text loses data/);
    // Refused before anything was done, not in the middle.
    expect((await migrationStatus(options(initial, label, dropText))).migrations[1]?.appliedAt).toBeUndefined();
    expect(await migrateUp({ ...options(initial, label, dropText), allowDestructive: true })).toHaveLength(2);
  });

  test("needs none at a first start", async () => {
    expect(await migrateUp(options(initial, label, dropText))).toHaveLength(3);
  });
});

describe("what is not as this build knows it", () => {
  test("a schema that is newer is refused", async () => {
    await migrateUp(options(initial, label));
    await expect(migrateUp(options(initial))).rejects.toThrow(/newer than this build \(0002-label\)/);
    await expect(migrateDown(options(initial))).rejects.toThrow(/newer than this build/);
    expect((await migrationStatus(options(initial))).unknown).toEqual(["0002-label"]);
  });

  test("an applied step that was edited is refused", async () => {
    await migrateUp(options(initial, label));
    const edited: Migration = {
      ...label,
      up: async (db) => {
        await sql`alter table note add column label varchar(10)`.execute(db);
      },
    };
    await expect(migrateUp(options(initial, edited))).rejects.toThrow(/edited \(0002-label\)/);
    expect((await migrationStatus(options(initial, edited))).edited).toEqual(["0002-label"]);
  });

  test("only the statements of a step count, not how its source is written", async () => {
    const spread: Migration = {
      ...label,
      up: async (db) => {
        // A comment.
        await sql`alter table   note
          add column label text`.execute(db);
      },
    };
    expect(await checksumOf(spread)).toBe(await checksumOf(label));
    expect(await checksumOf(initial)).not.toBe(await checksumOf(label));
  });

  test("a step that was inserted before an applied one is refused", async () => {
    await migrateUp(options(initial, dropText));
    await expect(migrateUp(options(initial, label, dropText))).rejects.toThrow(
      /0002-label comes before 0003-drop-text/,
    );
  });

  test("whatever was changed by hand is reported", async () => {
    const changes: readonly (readonly [statement: string, line: RegExp])[] = [
      ["alter table sample.note add column extra int", /^\+ column note\.extra integer/],
      ["alter table sample.note alter column text type varchar(9)", /^\+ column note\.text character varying\(9\)/],
      ["alter table sample.note drop constraint note_check", /^- constraint note\.note_check/],
      ["drop index sample.note_text", /^- index CREATE INDEX note_text/],
      ["drop policy org on sample.note", /^- policy note\.org/],
      ["alter table sample.idempotency disable row level security", /^\+ table idempotency .*rls=f/],
      [
        "create or replace function sample.note_count() returns bigint language sql as 'select 1'",
        /^\+ function note_count/,
      ],
      ["grant truncate on sample.note to cadre_sample_app", /^\+ table note .*rights=.*cadre_sample_app=arwdD/],
      ["alter type sample.mood add value 'odd'", /^\+ type mood {good,bad,odd}/],
      ["create table sample.other (id int)", /^\+ table other/],
      ["create view sample.some as select 1 as one", /^\+ view some/],
    ];
    await migrateUp(options(initial));
    expect((await migrationStatus(options(initial))).drift).toEqual([]);
    for (const [statement] of changes) await execute(statement);
    const { drift } = await migrationStatus(options(initial));
    for (const [statement, line] of changes) {
      expect(
        drift.some((entry) => line.test(entry)),
        statement,
      ).toBe(true);
    }
  });
});

test("several migrators at once apply each step once", async () => {
  const applied = await Promise.all(Array.from({ length: 6 }, () => migrateUp(options(initial, label))));
  expect(applied.flat().sort()).toEqual(["0001-initial", "0002-label"]);
});

test("several services migrate at once, in databases that share a server", async () => {
  const second = await createTestDatabase();
  const names = ["tools", "credentials", "gateway"];
  await Promise.all(
    [database.url, second.url].flatMap((url) =>
      names.map((name) => migrateUp({ url, service: name, migrations: [], log })),
    ),
  );
  await second.drop();
});

test("status of a schema that is not there yet", async () => {
  const status = await migrationStatus(options(initial));
  expect(status.migrations).toEqual([{ name: "0001-initial", destructive: false, appliedAt: undefined }]);
});

test("names that would not be safe or sorted are refused", async () => {
  await expect(migrateUp({ ...options(), service: "a; drop" })).rejects.toThrow(TypeError);
  await expect(migrateUp(options(label, initial))).rejects.toThrow(/out of order/);
  await expect(migrateUp(options({ ...initial, name: "initial" }))).rejects.toThrow(TypeError);
});

test("PostgreSQL that stays away is UNAVAILABLE, after waiting", async () => {
  const away = { ...options(initial), url: "postgres://nobody@127.0.0.1:1/none", waitMs: 300 };
  await expect(migrateUp(away)).rejects.toMatchObject({ reason: "UNAVAILABLE" });
});
