import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { FieldUseService } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import { type Cadre, type ContractInit, createCadre, type Incompatibility } from "@cadre/sdk";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { toContract } from "../../cli/contracts/contract-source.ts";
import { readContracts } from "../../cli/contracts/read-contracts.ts";
import { fieldUseHandlers } from "../../services/registry/rpc/field-use-handlers.ts";
import { PostgresRegistryStore } from "../../services/registry/store/postgres-registry-store.ts";
import type { RegistrySchema } from "../../services/registry/store/schema.ts";
import { consumeRepeatable } from "../../services/runtime/bus/consumer/consume-repeatable.ts";
import { createFieldReads, type FieldReads } from "../../services/runtime/bus/consumer/field-reads.ts";
import type { EventBus } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId, toUuid } from "../../services/runtime/ids/id.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";
import { requestEvent } from "../support/run-requests.ts";
import { until } from "../support/settled.ts";
import { codec, turnEvent } from "../support/turn-facts.ts";

// What consumers read is known to who changes a contract: a real server, its
// bus, a consumer of the platform's own and one beside it.

const log = pino({ level: "silent" });
const path = "cadre/events/v1/turn.proto";
const requests = "cadre/events/v1/run_request.proto";
let database: TestDatabase;
let server: RunningCadre;
let cadre: Cadre;
let bus: EventBus;
let registry: Database<RegistrySchema>;
let reads: FieldReads;
let orgId = "";
let contracts: readonly ContractInit[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
  server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url } });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  orgId = (await cadre.principal()).org.orgId;
  contracts = closure((await readContracts("proto", ["third_party/proto"])).map(toContract), [path, requests]);
  await cadre.contracts.push(contracts);
  bus = await openPostgresEventBus({ url: database.url, log });
  // The registry once more, on the same tables: its internal methods are not for who stands outside.
  registry = openDatabase<RegistrySchema>({ url: database.url, service: "registry", log });
  const { service, handlers } = fieldUseHandlers({ store: new PostgresRegistryStore(registry) }, async () =>
    toUuid("org", orgId),
  );
  const transport = createRouterTransport((router) => router.service(service, handlers));
  reads = createFieldReads({ registry: createClient(FieldUseService, transport), log, firstMs: 100 });
}, 90_000);
afterAll(async () => {
  reads.stop();
  await bus.close();
  await registry.close();
  await server.dispose();
  await database.drop();
});

/** Files with all that they import, in the order of the set. */
function closure(all: readonly ContractInit[], paths: readonly string[]): readonly ContractInit[] {
  const wanted = new Set(paths);
  for (const contract of all.toReversed())
    if (wanted.has(contract.path)) for (const one of contract.imports) wanted.add(one);
  return all.filter((contract) => wanted.has(contract.path));
}

/** How a file stands with a change to it. */
async function compared(file: string, change: (schema: string) => string) {
  const set = closure(contracts, [file]);
  const changed = set.map((one) => (one.path === file ? { ...one, schema: change(one.schema) } : one));
  const found = (await cadre.contracts.compare(changed)).contracts.find(({ subject }) => subject === file);
  if (found === undefined) throw new Error(`${file} is not in the set`);
  return found;
}

/** What is found of fields of a file that get another type, by their names. */
async function retyped(file: string, ...names: readonly string[]): Promise<ReadonlyMap<string, Incompatibility>> {
  const fields = new RegExp(`(?:string|uint64) (${names.join("|")}) = `, "g");
  const { incompatibilities } = await compared(file, (schema) => schema.replace(fields, "fixed32 $1 = "));
  return new Map(incompatibilities.map((found) => [/\((\w+)\)/.exec(found.member)?.[1] ?? "", found]));
}

const withoutSession = (schema: string) => schema.replace(/string session_id = 2[^;]*;/, "reserved 2;");

/** What `cadre contracts diff` says to people of the set with one of its files changed. */
async function diffByCli(file: string, change: (schema: string) => string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "cadre field use "));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  for (const { path: name, schema } of closure(contracts, [file])) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), name === file ? change(schema) : schema);
  }
  const flags = ["--url", server.url, "--api-key", server.adminKey];
  const program = [join(import.meta.dirname, "../../cli/bin/cadre.js"), "contracts", "diff", directory, ...flags];
  return (await runProgram(process.execPath, program, { timeoutMs: 60_000 })).stdout;
}

test("a change of a contract says who reads the field, and that nobody does where consumers sample", async () => {
  // Nobody samples yet, so nothing is said.
  expect((await retyped(path, "session_id")).get("session_id")?.message).toMatch(/\(FIELD_WIRE_COMPATIBLE_TYPE\)$/);
  const { promise: handled, resolve: onHandled } = Promise.withResolvers<string>();
  const consumer = consumeRepeatable({
    bus,
    codec,
    topic: conversationTurns,
    group: "audit.exporter",
    fieldReads: reads,
    handle: async ({ fact }) => onHandled(`${fact.sessionId} ${fact.metadata?.seq}`),
    log,
    tracer: trace.getTracer("test"),
    meter: metrics.getMeter("test"),
  });
  const sessionId = newId("ses");
  await bus.publish([await turnEvent(orgId, sessionId, 7)]);
  expect(await handled).toBe(`${sessionId} 7`);
  await until(async () => (await retyped(path, "session_id")).get("session_id")?.fieldUse !== undefined);
  const found = await retyped(path, "session_id", "turn_id", "event_id", "seq");
  const read = / is fixed32 \(FIELD_WIRE_COMPATIBLE_TYPE\); read by 1 consumer, last .* ago by audit\.exporter$/;
  expect(found.get("session_id")?.message).toMatch(read);
  const [reader] = found.get("session_id")?.fieldUse?.readers ?? [];
  expect(reader).toMatchObject({ group: "audit.exporter" });
  expect(Date.now() - (reader?.lastReadAt === undefined ? 0 : timestampMs(reader.lastReadAt))).toBeLessThan(600_000);
  expect(found.get("turn_id")).toMatchObject({
    message: expect.stringMatching(/; no sampled reads$/),
    fieldUse: { field: "turn_id", readers: [] },
  });
  // Within a message of the message.
  expect(found.get("seq")?.message).toMatch(read);
  expect(found.get("event_id")?.message).toMatch(/; no sampled reads$/);

  // What may be removed is told as well.
  expect(await compared(path, withoutSession)).toMatchObject({
    incompatibilities: [],
    removedFields: [
      {
        typeName: "cadre.events.v1.TurnChanged",
        field: "session_id",
        message: expect.stringMatching(/^read by 1 consumer, last .* ago by audit\.exporter$/),
      },
    ],
  });
  const shown = await diffByCli(path, withoutSession);
  expect(shown).toMatch(
    /^cadre\/events\/v1\/turn\.proto: changed\n {2}cadre\.events\.v1\.TurnChanged: session_id is removed; read by 1 consumer, last .* ago by audit\.exporter$/m,
  );
  const old = { typeName: "cadre.events.v1.TurnChanged", group: "old", lastReadAt: new Date(0) };
  await new PostgresRegistryStore(registry).change(toUuid("org", orgId), [], ({ fieldReads }) =>
    fieldReads.keep([
      { ...old, field: "session_id" },
      { ...old, field: "turn_id" },
    ]),
  );
  const later = await retyped(path, "session_id", "turn_id");
  expect(later.get("session_id")?.message).toMatch(/read by 2 consumers, last .* ago by audit\.exporter$/);
  expect(later.get("turn_id")?.message).toMatch(/1 consumer, last \d+ days ago by old$/);
  await consumer.stop();
});

test("the platform's own consumers report to the registry of their mesh", async () => {
  await bus.publish([await requestEvent({ orgId, request: new Uint8Array([1]), token: "forged" })]);
  await until(async () => (await retyped(requests, "token")).get("token")?.fieldUse !== undefined);
  expect((await retyped(requests, "token")).get("token")?.message).toMatch(
    /; read by 1 consumer, last .* ago by orchestrator\.requests$/,
  );
});
