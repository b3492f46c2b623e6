/**
 * Records histories of this version, by really making runs and turns, as files
 * that later versions have to replay unchanged: `test/histories/<version>/`.
 * Files that are there already are left as they are: a history is never
 * recorded anew.
 *
 *     node scripts/record-histories.ts v1
 */
import { access, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { ExportedRunSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import pino from "pino";
import type { Logger } from "../services/runtime/log/log.ts";
import { startEmbeddedPostgres } from "../services/runtime/postgres/embedded-server.ts";
import { historyTools, recordHistories } from "../test/histories/scenarios.ts";
import { migrateOrchestrator, startTestOrchestrator, testPrincipal } from "../test/support/orchestrator.ts";

const version = process.argv[2] ?? "";
if (!/^v[0-9]+$/.test(version)) throw new Error("usage: node scripts/record-histories.ts v<number>");
const directory = join(import.meta.dirname, "..", "test", "histories", version);
await mkdir(directory, { recursive: true });

const dataDirectory = await mkdtemp(join(tmpdir(), "cadre histories "));
const server = await startEmbeddedPostgres({ dataDirectory, log: pino({ level: "warn" }) as Logger });
try {
  await migrateOrchestrator(server.url);
  const principal = testPrincipal();
  const revoked = new Set<string>();
  const cadre = await startTestOrchestrator({ databaseUrl: server.url, tools: historyTools(), revoked }, principal);
  for await (const { name, run } of recordHistories({ cadre, revoked, subject: principal.subject })) {
    const path = join(directory, `${name}.json`);
    const known = await access(path).then(
      () => true,
      () => false,
    );
    if (!known) await writeFile(path, `${JSON.stringify(toJson(ExportedRunSchema, run), undefined, 1)}\n`);
    process.stdout.write(`${known ? "kept" : "recorded"} ${name}: ${run.entries.length} entries\n`);
  }
  await cadre.stop();
} finally {
  await server.stop();
  await rm(dataDirectory, { recursive: true, force: true });
}
