import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import {
  type CompiledQuery,
  type DatabaseConnection,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresDialect,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type QueryResult,
} from "kysely";
import pg from "pg";
import type { Logger } from "../log/log.ts";
import { describeCatalog } from "./catalog.ts";
import { connectWhenReady } from "./connect-when-ready.ts";
import { toDatabaseError } from "./database-error.ts";
import type { Migration } from "./migration.ts";
import { assertService, roleOf } from "./role.ts";

export type { Migration } from "./migration.ts";
export { enableOrgSecurity } from "./org-security.ts";

// Invariants:
// M1. One migrator per service at a time: all work happens under an advisory lock.
// M2. A step and the record of it commit together, so a step is applied whole or not at all.
// M3. Nothing is applied on top of what is not understood: unknown steps (a newer
//     build was here) and edited steps stop the migrator.

export interface MigratorOptions {
  /** As for `openDatabase`; the login role may create roles, and schemas in the database. */
  readonly url: string;
  /** Names schema and roles. */
  readonly service: string;
  /** All steps, in order. */
  readonly migrations: readonly Migration[];
  readonly log: Logger;
}

export interface MigrateUpOptions extends MigratorOptions {
  /** Lets destructive steps run. A first start on an empty schema needs no leave: there is nothing to lose. */
  readonly allowDestructive?: boolean;
  /** How long to wait for a PostgreSQL that is not there yet. Default 5 minutes. */
  readonly waitMs?: number;
}

export interface MigrateDownOptions extends MigratorOptions {
  /** The last step that stays; `undefined` undoes one step; `""` undoes all. */
  readonly to?: string;
}

/** A step, and whether it was applied. */
export interface MigrationState {
  readonly name: string;
  readonly destructive: boolean;
  readonly appliedAt: Date | undefined;
}

/** How a service's schema stands. */
export interface MigrationStatus {
  readonly service: string;
  readonly migrations: readonly MigrationState[];
  /** Applied steps that this build does not know: it is older than the schema. */
  readonly unknown: readonly string[];
  /** Applied steps whose statements are not those of this build. */
  readonly edited: readonly string[];
  /** Lines of the catalog that are not as the last step left them: `+` for added by hand, `-` for missing. */
  readonly drift: readonly string[];
}

/**
 * Brings a service's schema up to date; makes its roles and schema if they are
 * not there. Waits for PostgreSQL. Several processes may call it at once.
 *
 * Every table is readable and writable for the app and engine roles; functions
 * are executable for the engine only, for a function that runs as its owner is
 * not bound by row-level security. A step grants more where it is meant.
 *
 * @throws MigrationError if an applied step was edited, the schema is newer, or a destructive step wants leave
 * @throws AppError UNAVAILABLE if PostgreSQL stays away
 */
export async function migrate(options: MigrateUpOptions): Promise<void> {
  await migrateUp(options);
}

/** `migrate`, telling which steps were applied. */
export async function migrateUp(options: MigrateUpOptions): Promise<readonly string[]> {
  return withSchema(options, options.waitMs ?? 300_000, async (session) => {
    const applied = await readApplied(session);
    const { unknown, edited } = await compare(options.migrations, applied);
    refuse(options.service, unknown, edited);
    const pending = options.migrations.filter((migration) => !applied.has(migration.name));
    const last = [...applied.keys()].at(-1) ?? "";
    for (const migration of pending) {
      if (migration.name < last) {
        throw new MigrationError(`${options.service}: step ${migration.name} comes before ${last}, which is applied`);
      }
      if (migration.destructive && applied.size > 0 && options.allowDestructive !== true) {
        throw new MigrationError(
          `${options.service}: step ${migration.name} loses data; back up, then allow it (cadre db migrate --allow-destructive)`,
        );
      }
    }
    for (const migration of pending) {
      const checksum = await checksumOf(migration);
      await inTransaction(session, async () => {
        await migration.up(session.db);
        await session.client.query("insert into schema_migration (name, checksum, catalog) values ($1, $2, $3)", [
          migration.name,
          checksum,
          (await describeCatalog(session.client, options.service)).join("\n"),
        ]);
      });
      options.log.info({ service: options.service, migration: migration.name }, "migrated up");
    }
    return pending.map((migration) => migration.name);
  });
}

/** Undoes steps, the last one first. Returns their names. Throws as `migrate`. */
export async function migrateDown(options: MigrateDownOptions): Promise<readonly string[]> {
  return withSchema(options, 10_000, async (session) => {
    const applied = await readApplied(session);
    const { unknown, edited } = await compare(options.migrations, applied);
    refuse(options.service, unknown, edited);
    const names = [...applied.keys()].reverse();
    const { to } = options;
    if (to !== undefined && to !== "" && !applied.has(to)) {
      throw new MigrationError(`${options.service}: step ${to} is not applied`);
    }
    const undo = to === undefined ? names.slice(0, 1) : names.filter((name) => name > to);
    for (const name of undo) {
      const migration = options.migrations.find((candidate) => candidate.name === name);
      if (migration === undefined) throw new MigrationError(`${options.service}: step ${name} is not known`);
      await inTransaction(session, async () => {
        await migration.down(session.db);
        await session.client.query("delete from schema_migration where name = $1", [name]);
        const before = names[names.indexOf(name) + 1];
        const catalog = await describeCatalog(session.client, options.service);
        const expected = before === undefined ? "" : (applied.get(before)?.catalog ?? "");
        const left = difference(expected === "" ? [] : expected.split("\n"), catalog);
        if (left.length > 0) {
          throw new MigrationError(
            `${options.service}: undoing ${name} does not restore the schema:\n${left.join("\n")}`,
          );
        }
      });
      options.log.info({ service: options.service, migration: name }, "migrated down");
    }
    return undo;
  });
}

/** Compares a service's schema with this build. Changes nothing. */
export async function migrationStatus(options: MigratorOptions): Promise<MigrationStatus> {
  const { service, migrations, url, log } = options;
  assertService(service);
  const client = await connectWhenReady({ url, name: `migrate ${service}`, waitMs: 10_000, log });
  try {
    const { rows } = await client.query<{ found: boolean }>("select to_regclass($1) is not null as found", [
      `${service}.schema_migration`,
    ]);
    if (rows[0]?.found !== true) {
      return {
        service,
        migrations: migrations.map(({ name, destructive }) => ({ name, destructive, appliedAt: undefined })),
        unknown: [],
        edited: [],
        drift: [],
      };
    }
    await client.query(`set role ${roleOf(service, "owner")}; set search_path = ${service}`);
    const session = { client, db: kyselyOn(client) };
    const applied = await readApplied(session);
    const last = [...applied.values()].at(-1);
    return {
      service,
      migrations: migrations.map(({ name, destructive }) => ({
        name,
        destructive,
        appliedAt: applied.get(name)?.appliedAt,
      })),
      ...(await compare(migrations, applied)),
      drift: last === undefined ? [] : difference(last.catalog.split("\n"), await describeCatalog(client, service)),
    };
  } finally {
    await client.end();
  }
}

/** What a service's schema consists of, one line each, in a stable order. For tests and `migrationStatus`. */
export async function describeSchema(url: string, service: string): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: url, options: `-c search_path=${assertService(service)}` });
  await client.connect();
  try {
    return await describeCatalog(client, service);
  } finally {
    await client.end();
  }
}

/** The schema and the build do not fit together. The message says what to do. */
export class MigrationError extends Error {
  override readonly name = "MigrationError";
}

/** The SHA-256 of the statements that a step's `up` sends. Formatting and comments of its source do not count. */
export async function checksumOf(migration: Migration): Promise<string> {
  const statements: string[] = [];
  const recorder = new Kysely<unknown>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new RecordingDriver(statements),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  });
  await migration.up(recorder);
  const hash = createHash("sha256");
  for (const statement of statements) hash.update(statement).update("\0");
  return hash.digest("hex");
}

class RecordingDriver extends DummyDriver {
  readonly #statements: string[];

  constructor(statements: string[]) {
    super();
    this.#statements = statements;
  }

  override async acquireConnection(): Promise<DatabaseConnection> {
    const statements = this.#statements;
    const connection = await super.acquireConnection();
    connection.executeQuery = async <R>(query: CompiledQuery): Promise<QueryResult<R>> => {
      statements.push(`${query.sql.replaceAll(/\s+/g, " ").trim()} ${JSON.stringify(query.parameters)}`);
      return { rows: [] };
    };
    return connection;
  }
}

interface Session {
  readonly client: pg.Client;
  readonly db: Kysely<unknown>;
}

interface Applied {
  readonly checksum: string;
  readonly catalog: string;
  readonly appliedAt: Date;
}

/** Runs `work` as the schema's owner, under the lock of M1. */
async function withSchema<T>(
  options: MigratorOptions,
  waitMs: number,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const { service } = options;
  assertOrder(options.migrations);
  assertService(service);
  const { url, log } = options;
  // The lock's timeout includes the wait for another migrator.
  const client = await connectWhenReady({ url, name: `migrate ${service}`, lockTimeoutMs: 60_000, waitMs, log });
  try {
    await client.query("select pg_advisory_lock(hashtextextended($1, 0))", [`cadre migrate ${service}`]);
    await prepareSchema(client, service);
    return await work({ client, db: kyselyOn(client) });
  } catch (error) {
    throw toDatabaseError(error, true);
  } finally {
    await client.end().catch(() => undefined); // broken already, which the error tells
  }
}

/** Makes roles, schema and the record of steps. Every statement may be repeated. */
async function prepareSchema(client: pg.Client, service: string): Promise<void> {
  const [owner, app, engine] = [roleOf(service, "owner"), roleOf(service, "app"), roleOf(service, "engine")];
  // Roles belong to the whole server: a migrator in another database may make them at this moment.
  for (const role of [owner, app, engine]) await ensureRole(client, role);
  const { rows } = await client.query<{ found: boolean }>(
    "select exists (select from pg_namespace where nspname = $1) as found",
    [service],
  );
  if (rows[0]?.found !== true) await client.query(`create schema ${service} authorization ${owner}`);
  await client.query(`set role ${owner}; set search_path = ${service}`);
  await client.query(`
    begin;
    grant usage on schema ${service} to ${app}, ${engine};
    alter default privileges revoke execute on functions from public;
    alter default privileges in schema ${service} grant select, insert, update, delete on tables to ${app}, ${engine};
    alter default privileges in schema ${service} grant usage, select on sequences to ${app}, ${engine};
    alter default privileges in schema ${service} grant execute on functions to ${engine};
    create table if not exists schema_migration (
      name text primary key,
      checksum text not null,
      catalog text not null,
      applied_at timestamptz not null default clock_timestamp()
    );
    revoke all on schema_migration from ${app}, ${engine};
    commit`);
}

async function ensureRole(client: pg.Client, role: string): Promise<void> {
  const attempts = 10;
  for (let attempt = 1; ; attempt++) {
    try {
      const { rows } = await client.query<{ found: boolean; member: boolean }>(
        `select exists (select from pg_roles where rolname = $1) as found,
                exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid
                         where r.rolname = $1 and m.member = session_user::regrole) as member`,
        [role],
      );
      if (rows[0]?.found !== true) await client.query(`create role ${role} nologin`);
      // From PostgreSQL 16 on, who makes a role may administer it, but not become it.
      const { rows: rights } = await client.query<{ may: boolean }>("select pg_has_role($1, 'SET') as may", [role]);
      if (rights[0]?.may !== true) await client.query(`grant ${role} to session_user`);
      return;
    } catch (error) {
      // 42710, 23505: made by another migrator meanwhile. XX000: "tuple concurrently updated", the same for a grant.
      const raced = error instanceof pg.DatabaseError && ["42710", "23505", "XX000"].includes(error.code ?? "");
      if (!raced || attempt === attempts) throw error;
      await delay(20 * attempt);
    }
  }
}

async function readApplied(session: Session): Promise<ReadonlyMap<string, Applied>> {
  const { rows } = await session.client.query<{ name: string; checksum: string; catalog: string; applied_at: Date }>(
    "select name, checksum, catalog, applied_at from schema_migration order by name",
  );
  return new Map(
    rows.map((row) => [row.name, { checksum: row.checksum, catalog: row.catalog, appliedAt: row.applied_at }]),
  );
}

async function compare(
  migrations: readonly Migration[],
  applied: ReadonlyMap<string, Applied>,
): Promise<{ unknown: readonly string[]; edited: readonly string[] }> {
  const known = new Map(migrations.map((migration) => [migration.name, migration]));
  const edited: string[] = [];
  for (const [name, { checksum }] of applied) {
    const migration = known.get(name);
    if (migration !== undefined && (await checksumOf(migration)) !== checksum) edited.push(name);
  }
  return { unknown: [...applied.keys()].filter((name) => !known.has(name)), edited };
}

/** M3. */
function refuse(service: string, unknown: readonly string[], edited: readonly string[]): void {
  if (unknown.length > 0) {
    throw new MigrationError(
      `${service}: the schema is newer than this build (${unknown.join(", ")}); run the newer build, or go down with it first`,
    );
  }
  if (edited.length > 0) {
    throw new MigrationError(`${service}: applied steps were edited (${edited.join(", ")}); add a new step instead`);
  }
}

async function inTransaction(session: Session, work: () => Promise<void>): Promise<void> {
  await session.client.query("begin");
  try {
    await work();
    await session.client.query("commit");
  } catch (error) {
    await session.client.query("rollback").catch(() => undefined); // the first error counts
    throw error;
  }
}

/** Lines that are in one description and not in the other. */
function difference(expected: readonly string[], actual: readonly string[]): readonly string[] {
  const [before, after] = [new Set(expected), new Set(actual)];
  return [
    ...expected.filter((line) => !after.has(line)).map((line) => `- ${line}`),
    ...actual.filter((line) => !before.has(line)).map((line) => `+ ${line}`),
  ];
}

function assertOrder(migrations: readonly Migration[]): void {
  let last = "";
  for (const { name } of migrations) {
    if (!/^[0-9]{4}-[a-z0-9-]+$/.test(name)) throw new TypeError(`not a migration's name: ${name}`);
    if (name <= last) throw new TypeError(`migration ${name} is out of order`);
    last = name;
  }
}

/** A kysely on one connection that is managed elsewhere. */
function kyselyOn(client: pg.Client): Kysely<unknown> {
  const pooled = { query: client.query.bind(client), release: () => undefined } as unknown as pg.PoolClient;
  return new Kysely<unknown>({
    dialect: new PostgresDialect({
      pool: { connect: async () => pooled, end: async () => undefined, options: {} },
    }),
  });
}
