import { readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { toUuid } from "../../services/runtime/ids/id.ts";
import { readServerProcess } from "../../services/runtime/postgres/server-process.ts";

/** The id of a run, or of the session that it is the turn of, as it is stored: `coalesce(session_id, run_id)`. */
export function storedId(id: string): string {
  return toUuid(id.startsWith("ses_") ? "ses" : "run", id);
}

/**
 * Connects to the PostgreSQL of a data directory as its superuser, past every
 * right and rule: to look at what was really stored, or to damage it.
 */
export async function connectToEmbedded(dataDirectory: string): Promise<pg.Client> {
  const directory = join(dataDirectory, "postgres");
  const server = await readServerProcess(directory);
  if (server === undefined) throw new Error(`no PostgreSQL runs on ${directory}`);
  const { superuserPassword } = JSON.parse(readFileSync(join(directory, "cadre.json"), "utf8")) as {
    superuserPassword: string;
  };
  const client = new pg.Client({
    host: "127.0.0.1",
    port: server.port,
    user: "postgres",
    password: superuserPassword,
    database: "cadre",
    options: "-c search_path=orchestrator",
  });
  // It may be killed under us; the query under way says so.
  client.on("error", () => undefined);
  await client.connect();
  return client;
}
