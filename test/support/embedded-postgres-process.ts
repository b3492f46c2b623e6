// A process of its own that starts the embedded PostgreSQL on a data directory:
//   node embedded-postgres-process.ts <data directory>
// It writes one line of JSON, `{ url, pid, adopted }` or `{ error, processId }`,
// and stops the server when its standard input ends.
import pino from "pino";
import { DataDirectoryInUseError, startEmbeddedPostgres } from "../../services/runtime/postgres/embedded-server.ts";

const dataDirectory = process.argv[2] ?? "";
const log = pino({ level: "info" }, pino.destination(2));
try {
  const server = await startEmbeddedPostgres({ dataDirectory, log });
  process.stdout.write(`${JSON.stringify({ url: server.url, pid: server.pid, adopted: server.adopted })}\n`);
  process.stdin.resume();
  process.stdin.once("end", () => {
    server.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, "could not stop");
        process.exit(1);
      },
    );
  });
} catch (error) {
  const processId = error instanceof DataDirectoryInUseError ? error.processId : undefined;
  process.stdout.write(`${JSON.stringify({ error: (error as Error).name, message: String(error), processId })}\n`);
  process.exitCode = 1;
}
