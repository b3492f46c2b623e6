import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { sql } from "kysely";
import pg from "pg";
import pino from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  DataDirectoryInUseError,
  type EmbeddedPostgres,
  resetDataDirectory,
  startEmbeddedPostgres,
} from "../../services/runtime/postgres/embedded-server.ts";
import { migrate } from "../../services/runtime/postgres/migrator.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { stopServer } from "../../services/runtime/postgres/postgres-cluster.ts";
import { isProcessAlive, readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { type Child, startChild } from "../support/child.ts";

const log = pino({ level: "silent" });
const program = join(import.meta.dirname, "../support/embedded-postgres-process.ts");

interface Answer {
  readonly url: string;
  readonly pid: number;
  readonly adopted: boolean;
  readonly error?: string;
  readonly message?: string;
  readonly processId?: number;
}

/** Making a cluster takes a second: made once, and copied for the tests that need an existing one. */
let template: string;
let root: string;
let dataDirectory: string;
const children: Child[] = [];
const servers: EmbeddedPostgres[] = [];

beforeAll(async () => {
  template = await mkdtemp(join(tmpdir(), "cadre fault "));
  const server = await startEmbeddedPostgres({ dataDirectory: template, log });
  await server.stop();
});
afterAll(() => rm(template, { recursive: true, force: true }));
beforeEach(async () => {
  // A space in the path, and closed to other users, as `mktemp -d` and `/root` are.
  root = await mkdtemp(join(tmpdir(), "cadre fault "));
  dataDirectory = join(root, "data directory");
});
afterEach(async () => {
  for (const child of children.splice(0)) await child.crash();
  for (const server of servers.splice(0)) await server.stop();
  await stopServer(join(dataDirectory, "postgres"), log);
  await rm(root, { recursive: true, force: true });
});

async function startInChild(): Promise<{ child: Child; answer: Answer }> {
  const child = startChild(program, [dataDirectory]);
  children.push(child);
  return { child, answer: JSON.parse(await child.line()) as Answer };
}

async function startHere(onLost?: (error: Error) => void): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({ dataDirectory, log, onLost });
  servers.push(server);
  return server;
}

async function query<T extends pg.QueryResultRow>(url: string, text: string): Promise<T[]> {
  const client = new pg.Client(url);
  client.on("error", () => undefined); // killed together with the server
  await client.connect();
  try {
    return (await client.query<T>(text)).rows;
  } finally {
    await client.end();
  }
}

describe("the embedded PostgreSQL on an existing directory", { timeout: 60_000 }, () => {
  beforeEach(async () => {
    // With owners, which `fs.cp` does not keep.
    await promisify(execFile)("cp", ["-a", template, dataDirectory]);
  });

  test("is durable, checked, closed to others, and remembers its port", async () => {
    const first = await startHere();
    expect(first.adopted).toBe(false);
    expect(new URL(first.url).hostname).toBe("127.0.0.1");
    const names = [
      "fsync",
      "synchronous_commit",
      "full_page_writes",
      "data_checksums",
      "password_encryption",
      "TimeZone",
      "listen_addresses",
      "shared_buffers",
      "max_connections",
    ];
    const rows = await query<{ value: string }>(
      first.url,
      `select current_setting(name) as value from unnest(array['${names.join("','")}']) with ordinality u(name, i) order by i`,
    );
    expect(rows.map(({ value }) => value)).toEqual([
      "on",
      "on",
      "on",
      "on",
      "scram-sha-256",
      "UTC",
      "127.0.0.1",
      "128MB",
      "200",
    ]);
    const [version] = await query<{ version: string }>(
      first.url,
      "select current_setting('server_version') as version",
    );
    expect(version?.version).toMatch(/^18\./);
    const wrong = new URL(first.url);
    wrong.password = "wrong";
    await expect(query(wrong.href, "select 1")).rejects.toMatchObject({ code: "28P01" });
    const login = await query<{ super: boolean }>(
      first.url,
      "select usesuper as super from pg_user where usename = current_user",
    );
    expect(login).toEqual([{ super: false }]);
    expect((await stat(join(dataDirectory, "postgres", "cadre.json"))).mode & 0o777).toBe(0o600);
    expect((await stat(join(dataDirectory, "postgres"))).mode & 0o077).toBe(0);
    await first.stop();
    await expect(query(first.url, "select 1")).rejects.toMatchObject({ code: "ECONNREFUSED" });
    const second = await startHere();
    expect(second.url).toBe(first.url);
    // Its log holds no statement and no value.
    await query(second.url, "create table t (secret text unique); insert into t values ('hidden value')");
    await query(second.url, "insert into t values ('hidden value')").catch(() => undefined);
    const text = await readFile(join(dataDirectory, "postgres.log"), "utf8");
    expect(text).toContain("duplicate key");
    expect(text).not.toContain("hidden value");
  });

  test("has on disk what it acknowledged: each commit waits for its sync", async () => {
    const server = await startHere();
    const client = new pg.Client(server.url);
    await client.connect();
    const syncs = async () => {
      await client.query("select pg_stat_force_next_flush()");
      const { rows } = await client.query<{ syncs: string }>(
        "select sum(fsyncs) as syncs from pg_stat_io where object = 'wal' and backend_type = 'client backend'",
      );
      return Number(rows[0]?.syncs);
    };
    await client.query("create table t (n int)");
    const before = await syncs();
    for (let n = 0; n < 100; n++) await client.query("insert into t values ($1)", [n]);
    expect((await syncs()) - before).toBeGreaterThanOrEqual(100);
    await client.end();
  });

  test("finds a damaged file, names it, and reads the rest", async () => {
    const server = await startHere();
    await query(
      server.url,
      `create table damaged (n int); insert into damaged select generate_series(1, 100);
       create table sound (n int); insert into sound values (1)`,
    );
    const rows = await query<{ path: string }>(server.url, "select pg_relation_filepath('damaged') as path");
    await server.stop();
    const path = join(dataDirectory, "postgres", rows[0]?.path ?? "");
    const bytes = await readFile(path);
    bytes[8_000] = (bytes[8_000] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const again = await startHere();
    await expect(query(again.url, "select n from damaged")).rejects.toMatchObject({ code: "XX001" });
    expect(await query(again.url, "select n from sound")).toEqual([{ n: 1 }]);
    await migrate({ url: again.url, service: "sample", migrations: [], log });
    await query(again.url, "grant select on damaged to cadre_sample_engine");
    const database = openDatabase<Record<never, never>>({ url: again.url, service: "sample", log });
    await expect(sql`select * from public.damaged`.execute(database.engine)).rejects.toMatchObject({
      reason: "DATA_LOSS",
    });
    await database.close();
  });

  test("is refused to a second process, which is told who has it", async () => {
    const { child } = await startInChild();
    const { child: second, answer } = await startInChild();
    expect(answer).toMatchObject({ error: "DataDirectoryInUseError", processId: child.pid });
    expect(answer.message).toContain(`process ${child.pid}`);
    expect(await second.finish()).toBe(1);
    await expect(startHere()).rejects.toMatchObject({ processId: child.pid });
    await expect(resetDataDirectory({ dataDirectory, log })).rejects.toBeInstanceOf(DataDirectoryInUseError);
    expect(await child.finish()).toBe(0);
    expect((await startHere()).adopted).toBe(false);
  });

  test("outlives a SIGKILL of its Cadre with all that was committed, and is adopted", async () => {
    const { child, answer } = await startInChild();
    await query(answer.url, "create table t (n int); insert into t values (1)");
    await child.crash();
    expect(await isProcessAlive(answer.pid)).toBe(true);
    const { child: heir, answer: adopted } = await startInChild();
    expect(adopted).toMatchObject({ adopted: true, pid: answer.pid, url: answer.url });
    expect(await query(adopted.url, "select n from t")).toEqual([{ n: 1 }]);
    expect(await heir.finish()).toBe(0);
    // It is nobody's child any more, and stands in the list until init has taken note of its end.
    await expect.poll(() => isProcessAlive(answer.pid)).toBe(false);
  });

  test("starts after a crash of the machine, whatever process has its old id by now", async () => {
    const server = await startHere();
    await query(server.url, "create table t (n int); insert into t values (1)");
    const pidFile = join(dataDirectory, "postgres", "postmaster.pid");
    const left = await readFile(pidFile, "utf8");
    await server.stop();
    for (const pid of [process.pid, 1, 4_194_304]) {
      await writeFile(pidFile, left.replace(/^\d+/, String(pid)));
      const again = await startHere();
      expect(again.adopted).toBe(false);
      expect(await query(again.url, "select n from t")).toEqual([{ n: 1 }]);
      await again.stop();
    }
  });

  test("is started again when it is killed, and the pools come back within five seconds", async () => {
    const server = await startHere();
    await migrate({ url: server.url, service: "sample", migrations: [], log });
    const database = openDatabase<Record<never, never>>({ url: server.url, service: "sample", log });
    const orgId = "01890000-0000-7000-8000-000000000001";
    const ask = () =>
      database
        .asOrg(orgId, async () => undefined)
        .then(
          () => "answered",
          (error: { reason?: string }) => error.reason ?? "other",
        );
    await Promise.all(Array.from({ length: 8 }, ask));
    for (let round = 0; round < 2; round++) {
      const killed = server.pid;
      process.kill(killed, "SIGKILL");
      const start = performance.now();
      const outcomes = new Set<string>();
      await expect
        .poll(
          async () => {
            const outcome = await ask();
            outcomes.add(outcome);
            return outcome === "answered" && server.pid !== killed;
          },
          { timeout: 10_000, interval: 20 },
        )
        .toBe(true);
      expect(performance.now() - start).toBeLessThan(5_000);
      expect([...outcomes].every((outcome) => outcome === "answered" || outcome === "UNAVAILABLE")).toBe(true);
      // All of the pool, not only one connection.
      expect(new Set(await Promise.all(Array.from({ length: 8 }, ask)))).toEqual(new Set(["answered"]));
    }
    await database.close();
  });

  test("keeps the directory through a crash of a single backend", async () => {
    const server = await startHere((error) => {
      throw error;
    });
    const { pid } = server;
    const [backend] = await query<{ pid: number }>(
      server.url,
      "select pid from pg_stat_activity where application_name = 'cadre " + process.pid + "'",
    );
    if (backend === undefined) throw new Error("somebody holds the directory");
    process.kill(backend.pid, "SIGKILL");
    await expect
      .poll(
        () =>
          query(
            server.url,
            `select 1 from pg_stat_activity where application_name = 'cadre ${process.pid}' and pid <> ${backend.pid}`,
          )
            .then((rows) => rows.length)
            .catch(() => 0),
        { timeout: 10_000 },
      )
      .toBe(1);
    expect(server.pid).toBe(pid);
    const { answer } = await startInChild();
    expect(answer).toMatchObject({ error: "DataDirectoryInUseError", processId: process.pid });
  });

  test("tells its Cadre when another one took the directory over", async () => {
    const { promise: lost, resolve } = Promise.withResolvers<Error>();
    const server = await startHere(resolve);
    const superuser = JSON.parse(await readFile(join(dataDirectory, "postgres", "cadre.json"), "utf8")) as {
      superuserPassword: string;
    };
    const admin = new URL(server.url);
    admin.username = "postgres";
    admin.password = superuser.superuserPassword;
    admin.pathname = "/postgres";
    const thieving = new pg.Client({ connectionString: admin.href, application_name: `cadre ${process.ppid}` });
    thieving.on("error", () => undefined); // ends with the server
    await thieving.connect();
    // Waits in line for the lock, and has it as soon as the holder's connection is gone.
    const locked = thieving.query("select pg_advisory_lock(0x6361647265)");
    await query(
      admin.href,
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cadre ${process.pid}'`,
    );
    await locked;
    expect(await lost).toMatchObject({ name: "DataDirectoryInUseError", processId: process.ppid });
    await thieving.end();
  });

  test("a reset removes a database that does not start any more", async () => {
    await writeFile(join(dataDirectory, "postgres", "global", "pg_control"), "damaged");
    await expect(startHere()).rejects.toThrow(/does not start/);
    await resetDataDirectory({ dataDirectory, log });
    expect(await readdir(dataDirectory)).toEqual([]);
  });

  test("a directory of something else is left alone", async () => {
    const server = await startHere();
    await server.stop();
    await writeFile(join(dataDirectory, "postgres", "PG_VERSION"), "15\n");
    await expect(startHere()).rejects.toThrow(/belongs to PostgreSQL 15; this build brings 18/);
    await rm(join(dataDirectory, "postgres", "PG_VERSION"));
    await expect(startHere()).rejects.toThrow(/not a PostgreSQL data directory/);
    expect(await readServerProcess(join(dataDirectory, "postgres"))).toBeUndefined();
  });
});

describe("the embedded PostgreSQL on an empty directory", { timeout: 60_000 }, () => {
  test("is one server, whoever starts it at the same moment", async () => {
    const started = await Promise.all([startInChild(), startInChild(), startInChild()]);
    const winners = started.filter(({ answer }) => answer.error === undefined);
    expect(winners).toHaveLength(1);
    const [winner] = winners;
    for (const { answer } of started) {
      if (answer.error !== undefined) expect(answer).toMatchObject({ processId: winner?.child.pid });
    }
    expect(await winner?.child.finish()).toBe(0);
    expect((await readdir(dataDirectory)).sort()).toEqual(["postgres", "postgres.log"]);
  });

  test("a start that was killed while it made the files leaves nothing behind", async () => {
    const child = startChild(program, [dataDirectory]);
    children.push(child);
    await expect
      .poll(() => readdir(dataDirectory).catch(() => []), { timeout: 10_000, interval: 5 })
      .toContainEqual(expect.stringMatching(/^postgres\.new-\d+-\w+$/));
    await child.crash();
    await startHere();
    expect((await readdir(dataDirectory)).filter((name) => name.includes(".new-"))).toEqual([]);
  });

  test("a reset stops an orphan and removes all of it", async () => {
    const { child, answer } = await startInChild();
    await query(answer.url, "create table t (n int)");
    await child.crash();
    await resetDataDirectory({ dataDirectory, log });
    await expect.poll(() => isProcessAlive(answer.pid)).toBe(false);
    expect(await readdir(dataDirectory)).toEqual([]);
    await resetDataDirectory({ dataDirectory, log });
    const fresh = await startHere();
    await expect(query(fresh.url, "select n from t")).rejects.toMatchObject({ code: "42P01" });
  });
});
