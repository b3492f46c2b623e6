import { join } from "node:path";
import pg from "pg";
import { readCluster } from "../../services/runtime/postgres/postgres-cluster.ts";
import { readServerProcess } from "../../services/runtime/postgres/server-process.ts";

/** A look into the PostgreSQL of a data directory, beside whoever uses it. */
export interface PostgresProbe {
  /** The server's process id. */
  readonly pid: number;
  /** The server's version, for example `18.4`. */
  readonly version: string;
  /** Milliseconds that a row took to be inserted and committed, in one statement, one after the other. */
  commits(samples: number): Promise<readonly number[]>;
  /** Bytes of write-ahead log since the cluster was made. */
  logBytes(): Promise<number>;
  /** The settings that durability and speed hang on, `name=value`. */
  settings(): Promise<readonly string[]>;
  /** Does now what the server does behind its users by itself, sooner or later: vacuum, statistics, a checkpoint. */
  tidyUp(): Promise<void>;
  close(): Promise<void>;
}

const named = ["fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_wal_size"];

/** Opens a probe as the superuser, in a database of its own. @throws Error if no server runs on the directory */
export async function openPostgresProbe(dataDirectory: string): Promise<PostgresProbe> {
  const directory = join(dataDirectory, "postgres");
  const [cluster, server] = await Promise.all([readCluster(directory), readServerProcess(directory)]);
  if (cluster === undefined || server === undefined) throw new Error(`no PostgreSQL runs on ${directory}`);
  const connection = {
    host: "127.0.0.1",
    port: server.port,
    user: "postgres",
    password: cluster.secrets.superuserPassword,
  };
  const first = new pg.Client({ ...connection, database: "postgres" });
  await first.connect();
  await first.query("create database bench");
  await first.end();
  const client = new pg.Client({ ...connection, database: "bench" });
  await client.connect();
  await client.query("create table probe (id bigint generated always as identity primary key, note text not null)");
  const one = async <T>(text: string, values: unknown[] = []): Promise<T> => {
    const { rows } = await client.query<{ value: T }>(text, values);
    if (rows[0] === undefined) throw new Error(`no row: ${text}`);
    return rows[0].value;
  };
  return {
    pid: server.pid,
    version: await one<string>("select current_setting('server_version') as value"),
    async commits(samples) {
      const insert = { name: "probe", text: "insert into probe (note) values ($1)", values: ["a row"] };
      await client.query(insert);
      const durationsMs: number[] = [];
      for (let sample = 0; sample < samples; sample++) {
        const startedAt = performance.now();
        await client.query(insert);
        durationsMs.push(performance.now() - startedAt);
      }
      return durationsMs;
    },
    logBytes: async () => Number(await one<string>("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as value")),
    async settings() {
      const { rows } = await client.query<{ name: string; value: string }>(
        "select name, current_setting(name) as value from pg_settings where name = any($1) order by name",
        [named],
      );
      return rows.map(({ name, value }) => `${name}=${value}`);
    },
    async tidyUp() {
      const cadre = new pg.Client({ ...connection, database: "cadre" });
      await cadre.connect();
      await cadre.query("vacuum (analyze)");
      await cadre.query("checkpoint");
      await cadre.end();
    },
    close: () => client.end(),
  };
}
