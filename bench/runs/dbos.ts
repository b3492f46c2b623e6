import { rm } from "node:fs/promises";
import pino from "pino";
import { startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";
import type { Contestant } from "./contestant.ts";
import { jsonRequest } from "./json-request.ts";
import { peerFile, peerVersion } from "./peer-packages.ts";
import { postgresDiskUse } from "./postgres-disk-use.ts";
import { openPostgresProbe } from "./postgres-probe.ts";
import { newDirectory } from "./scratch.ts";
import { startApplication } from "./started-child.ts";

// DBOS, a library in a Node process, and the same PostgreSQL that comes with
// Cadre, with the settings that Cadre gives it. DBOS commits each step's result
// in a transaction before it goes on.

/** Connections to the database. */
const poolSize = 20;

export const dbos: Contestant = {
  get name() {
    return `dbos ${peerVersion("@dbos-inc/dbos-sdk")}`;
  },
  get settings() {
    return [
      `@dbos-inc/dbos-sdk ${peerVersion("@dbos-inc/dbos-sdk")}; one process, a workflow with \`DBOS.runStep\` for each step, started in the process that takes the request`,
      `${poolSize} connections to PostgreSQL; the default of 10 and 50 were no quicker`,
      "the PostgreSQL that comes with Cadre, in a directory of its own, with Cadre's settings for it",
    ];
  },
  async start() {
    await using scope = new AsyncDisposableStack();
    const directory = await newDirectory("dbos");
    scope.defer(() => rm(directory, { recursive: true }));
    const log = pino({ level: "error" }, pino.destination(2));
    const postgres = await startEmbeddedPostgres({ dataDirectory: directory, log });
    scope.defer(() => postgres.stop());
    const probe = await openPostgresProbe(directory);
    scope.defer(() => probe.close());
    const application = await startApplication(peerFile("dbos-app.mjs"), [postgres.url, `${poolSize}`]);
    scope.defer(() => application.stop());
    const running = scope.move();
    return {
      request: jsonRequest(`http://127.0.0.1:${application.port}`, "/"),
      pids: () => [application.pid, probe.pid],
      diskUse: () => postgresDiskUse(directory, probe),
      stop: () => running.disposeAsync(),
    };
  },
};
