import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { createCadre } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { createRegistrySchemaIds } from "../../services/runtime/bus/registry-schema-ids.ts";
import { decodeWire } from "../../services/runtime/bus/wire-codec.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";

// `cadre contracts` as a person or a script calls it, against a real server.
vi.setConfig({ testTimeout: 60_000 });

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
const home = mkdtempSync(join(tmpdir(), "cadre contracts "));
let server: RunningCadre;
beforeAll(async () => {
  server = await startCadre();
}, 90_000);
afterAll(async () => {
  await server.dispose();
  rmSync(home, { recursive: true, force: true });
});

function contracts(args: readonly string[], key = server.adminKey) {
  const flags = ["--url", server.url, "--api-key", key];
  return runProgram(process.execPath, [program, "contracts", ...args, ...flags], { timeoutMs: 60_000 });
}

function write(path: string, text: string): void {
  const file = join(home, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

test("our own contracts are pushed once, each under its path and a topic's under its subject, by one id", async () => {
  const first = await contracts(["push", "--json"]);
  expect(first.stderr).toBe("");
  const { registered } = JSON.parse(first.stdout) as { registered: { subject: string; schema_id: number }[] };
  expect(first.code).toBe(0);
  const idOf = (subject: string) => registered.find((one) => one.subject === subject)?.schema_id;
  expect(idOf("cadre/events/v1/run.proto")).toBeGreaterThan(0);
  expect(idOf("agent.runs.v1-value")).toBe(idOf("cadre/events/v1/run.proto"));
  const again = JSON.parse((await contracts(["push", "--json"])).stdout);
  expect(again).toEqual({ registered: [], unchanged: registered.length });
  const got = await contracts(["get", "cadre/events/v1/run.proto"]);
  expect(got.stdout).toContain("message RunChanged {");
  const listed = await contracts(["list", "cadre/events/"]);
  expect(listed.stdout).toMatch(/cadre\/events\/v1\/run\.proto +1 +\d+ +\d+/);
});

test("pushed contracts are found by the descriptors of the build, and events carry their ids", async () => {
  const credentialsFile = join(home, "registry-credentials");
  writeFileSync(credentialsFile, `cadre:${server.adminKey}\n`, { mode: 0o600 });
  const access = { url: `${server.url}/registry`, credentialsFile };
  const ids = createRegistrySchemaIds(access);
  const { schemas } = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const subject = "conversation.turns.v1-value";
  const { schemaId } = await schemas.get(subject);
  expect(await ids.idOf(subject, TurnChangedSchema.file)).toBe(schemaId);
  const file = await ids.fileOf(schemaId);
  expect(file?.messages.map(({ typeName }) => typeName)).toEqual(
    TurnChangedSchema.file.messages.map(({ typeName }) => typeName),
  );
  expect(await ids.fileOf(2_000_000_000)).toBeUndefined();
  await expect(ids.idOf("nothing-value", TurnChangedSchema.file)).rejects.toMatchObject({
    reason: "SCHEMA_NOT_REGISTERED",
    message: "cadre/events/v1/turn.proto of this build is not registered under the subject nothing-value",
  });
  writeFileSync(join(home, "wrong"), "cadre:wrong");
  const refused = createRegistrySchemaIds({ ...access, credentialsFile: join(home, "wrong") });
  await expect(refused.fileOf(schemaId)).rejects.toMatchObject({ reason: "UNAVAILABLE" });
  const nobody = createRegistrySchemaIds({ url: "http://127.0.0.1:1/registry", credentialsFile: undefined });
  await expect(nobody.idOf(subject, TurnChangedSchema.file)).rejects.toMatchObject({ reason: "UNAVAILABLE" });

  const database = await createTestDatabase();
  const settings = {
    CADRE_DATABASE_URL: database.url,
    CADRE_REGISTRY_URL: access.url,
    CADRE_REGISTRY_CREDENTIALS_FILE: credentialsFile,
  };
  const publisher = await startCadre({ settings });
  try {
    const cadre = createCadre({ baseUrl: publisher.url, apiKey: publisher.adminKey });
    const session = await cadre.sessions.create({ agent: "assistant" });
    await session.send("hello");
    const bus = await openPostgresEventBus({ url: database.url, log: pino({ level: "silent" }) });
    const { promise: received, resolve: onEvent } = Promise.withResolvers<Uint8Array>();
    const subscription = bus.subscribe({
      topic: "conversation.turns.v1",
      group: "ids",
      handle: async ({ value }) => onEvent(value),
    });
    expect(decodeWire(await received).schemaId).toBe(schemaId);
    await subscription.stop();
    await bus.close();
  } finally {
    await publisher.dispose();
    await database.drop();
  }
});

test("a breaking change registers nothing; forced by an admin, with a reason, it is registered and audited", async () => {
  const proto = join(home, "proto");
  write("proto/base.proto", 'syntax = "proto3"; package t; message Base { string id = 1; }');
  write("proto/user.proto", 'syntax = "proto3"; package t; import "base.proto"; message User { Base base = 1; }');
  expect((await contracts(["push", proto])).stdout).toMatch(
    /^base\.proto: version 1, id \d+\nuser\.proto: version 1, id \d+\n$/,
  );

  write("proto/base.proto", 'syntax = "proto3"; package t; message Base { int32 id = 1; }');
  write("proto/more.proto", 'syntax = "proto3"; package t; message More {}');
  const diff = await contracts(["diff", proto]);
  expect(diff.code).toBe(1);
  expect(diff.stdout.split("\n")).toEqual([
    "base.proto: breaks",
    expect.stringMatching(/^ {2}version 1: .*t\.Base: field 1 \(id\): its type was string and is int32 \(FIELD_WIRE/),
    "more.proto: new",
    "user.proto: follows a change of base.proto",
    "",
  ]);
  const refused = await contracts(["push", proto]);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("Nothing was registered")]);
  expect((await contracts(["get", "more.proto"])).code).toBe(1);

  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const developer = await cadre.keys.issue({ name: "dev", scopes: ["registry.*"], role: "developer" });
  const force = ["push", proto, "--force", "--reason", "nobody has the first one yet"];
  expect((await contracts(["push", proto, "--force"])).code).toBe(2);
  expect((await contracts(force, developer.secret)).code).toBe(77);
  const forced = await contracts(force);
  expect([forced.code, forced.stderr]).toEqual([0, "3 registered, 0 as they were.\n"]);
  expect(await cadre.schemas.get("base.proto")).toMatchObject({
    version: 2,
    forcedReason: "nobody has the first one yet",
  });
  const audit = await fetch(`${server.url}/v1/audit?type=schema.forced`, {
    headers: { authorization: `Bearer ${server.adminKey}` },
  });
  const { events } = (await audit.json()) as { events: { resource: string; reason: string; decision: string }[] };
  const ofBase = events.find(({ resource }) => resource === "subject/base.proto");
  expect(ofBase).toMatchObject({ reason: "nobody has the first one yet", decision: "AUDIT_DECISION_ALLOWED" });
});
