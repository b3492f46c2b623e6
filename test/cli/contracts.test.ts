import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { create, type DescMessage, fromJson, type JsonValue, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { ContractState, createCadre, ServingState } from "@cadre/sdk";
import { ProtobufDeserializer, SchemaRegistryClient, SerdeType } from "@confluentinc/schemaregistry";
import pino from "pino";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { lintContracts } from "../../cli/contracts/lint-contracts.ts";
import { readContracts } from "../../cli/contracts/read-contracts.ts";
import { generateSdk } from "../../cli/sdk/generate-sdk.ts";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { registeredTopics } from "../../services/runtime/bus/registered-topics.ts";
import { createRegistrySchemaIds } from "../../services/runtime/bus/registry-schema-ids.ts";
import { type Fact, type Topic, topics } from "../../services/runtime/bus/topics.ts";
import { decodeMessage, decodeWire, encodeWire, messageAt } from "../../services/runtime/bus/wire-codec.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";

// `cadre contracts` as a person or a script calls it, against a real server.
vi.setConfig({ testTimeout: 120_000 });

const root = join(import.meta.dirname, "../..");
const program = join(root, "cli/bin/cadre.js");
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

const eventVectors = JSON.parse(readFileSync(join(root, "test/vectors/events.json"), "utf8")) as readonly {
  readonly topic: string;
  readonly event: JsonValue;
}[];

/** A file with the name and password by which a registry's client is let in. */
function writeCredentials(): string {
  const file = join(home, "registry-credentials");
  writeFileSync(file, `cadre:${server.adminKey}\n`, { mode: 0o600 });
  return file;
}

test("our own contracts are pushed once, each under its path and a topic's under its subject, by one id", async () => {
  const first = await contracts(["push", "--own", "--json"]);
  expect(first.stderr).toBe("");
  const { registered, digest } = JSON.parse(first.stdout) as {
    registered: { subject: string; schema_id: number }[];
    digest: string;
  };
  expect(first.code).toBe(0);
  const idOf = (subject: string) => registered.find((one) => one.subject === subject)?.schema_id;
  expect(idOf("cadre/events/v1/run.proto")).toBeGreaterThan(0);
  expect(idOf("agent.runs.v1-value")).toBe(idOf("cadre/events/v1/run.proto"));
  const again = JSON.parse((await contracts(["push", "--json"])).stdout);
  expect(again).toEqual({ registered: [], unchanged: registered.length, digest });
  expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
  const got = await contracts(["get", "cadre/events/v1/run.proto"]);
  expect(got.stdout).toContain("message RunChanged {");
  const listed = await contracts(["list", "cadre/events/"]);
  expect(listed.stdout).toMatch(/cadre\/events\/v1\/run\.proto +1 +\d+ +\d+/);
});

test("pushed contracts are found by the descriptors of the build, and events carry their ids", async () => {
  const credentialsFile = writeCredentials();
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
  const codec = createEventCodec(ids, { knowsAllIds: true });
  // The golden event of each topic goes out under its registered id, and comes back by that id.
  for (const topic of topics as readonly unknown[] as readonly Topic[]) {
    const { name, message } = topic;
    const fact = fromJson(message, eventVectors.find((vector) => vector.topic === name)?.event ?? null) as Fact;
    const event = await codec.encode(topic, fact, { orgId: fact.metadata?.orgId ?? "" });
    expect(decodeWire(event.value).schemaId).toBe((await schemas.get(`${name}-value`)).schemaId);
    expect(await codec.decode(topic, event)).toEqual(fact);
  }
  expect(await registeredTopics(ids, topics).check()).toEqual({ state: ServingState.SERVING, detail: "" });
  expect(await registeredTopics(ids, [...topics, { name: "nothing", message: TurnChangedSchema }]).check()).toEqual({
    state: ServingState.NOT_SERVING,
    detail: "cadre/events/v1/turn.proto of this build is not registered under the subject nothing-value",
  });
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

test("what events need goes to a registry by its REST API, too, and finds there what a push registered", async () => {
  const push = (...flags: readonly string[]) =>
    runProgram(process.execPath, [
      ...[program, "contracts", "push", "--registry-url", `${server.url}/registry`, "--json"],
      ...flags,
    ]);
  const pushed = await push("--own", "--registry-credentials-file", writeCredentials());
  expect(pushed.code, pushed.stderr).toBe(0);
  const { registered, unchanged } = JSON.parse(pushed.stdout) as { registered: unknown[]; unchanged: number };
  expect(registered).toEqual([]);
  expect(unchanged).toBeGreaterThan(topics.length);
  expect(await push("--own")).toMatchObject({ code: 77, stderr: expect.stringContaining("UNAUTHENTICATED") });
  expect(await push()).toMatchObject({ code: 2, stderr: expect.stringContaining("--own") });
});

test("a breaking change registers nothing; forced by an admin, with a reason, it is registered, audited and remembered", async () => {
  const proto = join(home, "proto");
  const header = 'syntax = "proto3"; package t.v1;';
  write("proto/t/v1/base.proto", `${header} message Base { string id = 1; }`);
  write("proto/t/v1/user.proto", `${header} import "t/v1/base.proto"; message User { Base base = 1; }`);
  const first = await contracts(["push", proto]);
  expect(first.stdout).toMatch(
    /^t\/v1\/base\.proto: version 1, id \d+\nt\/v1\/user\.proto: version 1, id \d+\ndigest sha256:[0-9a-f]{64}\n$/,
  );
  expect(first.stderr).toBe(
    "2 files are linted.\nThey are compared with what is registered.\n2 are registered.\n2 registered, 0 as they were.\n",
  );

  write("proto/t/v1/base.proto", `${header} message Base { int32 id = 1; }`);
  write("proto/t/v1/more.proto", `${header} message More {}`);
  const diff = await contracts(["diff", proto]);
  expect(diff.code).toBe(1);
  expect(diff.stdout.split("\n")).toEqual([
    "t/v1/base.proto: breaks",
    "  version 1: t/v1/base.proto: t.v1.Base: field 1 (id): its type was string and is int32 (FIELD_WIRE_COMPATIBLE_TYPE)",
    "t/v1/more.proto: new",
    "t/v1/user.proto: breaks by t/v1/base.proto",
    "",
  ]);
  const refused = await contracts(["push", proto]);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("--review --reason")]);
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const isAbsent = () =>
    expect(cadre.contracts.history("t/v1/more.proto")).rejects.toMatchObject({ reason: "SUBJECT_NOT_FOUND" });
  await isAbsent();
  const developer = await cadre.keys.issue({ name: "dev", scopes: ["registry.*"], role: "developer" });
  const force = ["push", proto, "--force", "--reason", "nobody has the first one yet"];
  expect((await contracts(["push", proto, "--force"])).code).toBe(2);
  expect((await contracts(force, developer.secret)).code).toBe(77);
  const byRest = await fetch(`${server.url}/v1/contracts/force`, {
    method: "POST",
    headers: { authorization: `Bearer ${developer.secret}`, "content-type": "application/json" },
    body: JSON.stringify({ contracts: [{ path: "x.proto", schema: 'syntax = "proto3";' }], reason: "mine" }),
  });
  expect(byRest.status).toBe(403);
  await isAbsent();
  const forced = await contracts([...force, "--json"]);
  const { registered, digest } = JSON.parse(forced.stdout) as { registered: unknown[]; digest: string };
  expect([forced.code, registered.length]).toEqual([0, 3]);

  const history = JSON.parse((await contracts(["history", "t/v1/base.proto", "--json"])).stdout);
  const by = expect.stringMatching(/^key_/);
  expect(history).toMatchObject({
    versions: [
      { version: 1, registered_by: by },
      { version: 2, registered_by: by, forced_reason: "nobody has the first one yet", set_digest: digest },
    ],
  });
  // What breaks nothing was not forced.
  expect((await cadre.contracts.history("t/v1/more.proto"))[0]?.forcedReason).toBe("");
  const audit = await fetch(`${server.url}/v1/audit?type=schema.forced`, {
    headers: { authorization: `Bearer ${server.adminKey}` },
  });
  const { events } = (await audit.json()) as { events: { resource: string; reason: string; decision: string }[] };
  expect(events.filter(({ reason }) => reason === "nobody has the first one yet")).toMatchObject([
    { resource: "subject/t/v1/user.proto", decision: "AUDIT_DECISION_ALLOWED" },
    { resource: "subject/t/v1/base.proto", decision: "AUDIT_DECISION_ALLOWED" },
  ]);
});

test("a set is registered as a whole or not at all, and what is wrong is told with its file", async () => {
  const { contracts: registry } = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const file = (path: string, body: string, imports: readonly string[] = []) => ({
    path,
    imports,
    schema: `syntax = "proto3"; package whole.v1; ${imports.map((name) => `import "${name}";`).join(" ")} ${body}`,
  });
  const a = file("whole/v1/a.proto", "message A { string id = 1; }");
  const b = file("whole/v1/b.proto", "message B { A a = 1; }", [a.path]);
  const { digest } = await registry.push([a, { ...b, subjects: ["whole-value"] }]);
  expect(await registry.push([a, { ...b, subjects: ["whole-value"] }])).toMatchObject({
    digest,
    contracts: [{ state: ContractState.SAME }, { state: ContractState.SAME }, { state: ContractState.SAME }],
  });

  const fresh = file("whole/v1/fresh.proto", "message Fresh {}");
  const isAbsent = () => expect(registry.history(fresh.path)).rejects.toMatchObject({ reason: "SUBJECT_NOT_FOUND" });
  const broken = file(a.path, "message A { int64 id = 1; }");
  await expect(registry.push([fresh, broken, b])).rejects.toMatchObject({
    reason: "SCHEMA_INCOMPATIBLE",
    message: expect.stringContaining("nothing is registered: whole/v1/a.proto: version 1: "),
  });
  await isAbsent();
  await expect(registry.push([fresh, file("whole/v1/c.proto", "message C { Missing m = 1; }")])).rejects.toMatchObject({
    reason: "INVALID_SCHEMA",
    message: expect.stringMatching(/^whole\/v1\/c\.proto: .*Missing/),
  });
  await isAbsent();
  await expect(registry.push([b, a])).rejects.toMatchObject({ reason: "INVALID_ARGUMENT" });
  await expect(
    registry.push([a, file("other.proto", "message O {}"), { ...b, subjects: [a.path] }]),
  ).rejects.toMatchObject({ reason: "INVALID_ARGUMENT" });

  // A message that comes with the import is no reason to refuse, and comparing registers nothing.
  const grown = file(a.path, "message A { string id = 1; } message Extra {}");
  const user = file(b.path, "message B { A a = 1; Extra extra = 2; }", [a.path]);
  const compared = await registry.compare([fresh, grown, user]);
  expect(compared.contracts.map(({ state }) => state)).toEqual([
    ContractState.NEW,
    ContractState.CHANGED,
    ContractState.CHANGED,
  ]);
  await isAbsent();
  const pushes = await Promise.all(Array.from({ length: 5 }, () => registry.push([fresh, grown, user])));
  expect(new Set(pushes.map((pushed) => pushed.digest))).toEqual(new Set([compared.digest]));
  expect((await registry.history(b.path)).map(({ version, setDigest }) => [version, setDigest])).toEqual([
    [1, digest],
    [2, compared.digest],
  ]);
});

test("contracts are linted before anything is registered, by the rules of their buf.yaml if there is one", async () => {
  const proto = join(home, "unlinted/proto");
  write("unlinted/proto/lint/v1/thing.proto", 'syntax = "proto3"; package lint.v1;\nmessage bad_name {}');
  const refused = await contracts(["push", proto]);
  expect(refused.stdout).toMatch(
    /^.*unlinted\/proto\/lint\/v1\/thing\.proto:2:9: .*bad_name.* \(MESSAGE_PASCAL_CASE\)\n$/,
  );
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("Nothing was registered.")]);
  write("unlinted/buf.yaml", "version: v2\nmodules: [{path: proto, lint: {except: [MESSAGE_PASCAL_CASE]}}]\n");
  expect((await contracts(["push", proto])).code).toBe(0);

  write(
    "own/proto/cadre/probe/v1/probe.proto",
    'syntax = "proto3"; package cadre.probe.v1; message Q { string thing_id = 1; }',
  );
  const own = await contracts(["push", join(home, "own/proto")]);
  expect([own.code, own.stdout]).toEqual([1, "cadre.probe.v1.Q.thing_id: an id without a rule (buf.validate)\n"]);
});

test("consumers with the old and with the new contract read what either wrote, by the schema id in the frame", async () => {
  const { contracts: registry } = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const order = (fields: string) => [
    {
      path: "both/v1/order.proto",
      subjects: ["both-value"],
      imports: [],
      schema: `syntax = "proto3"; package both.v1; message Other {} message Order { ${fields} }`,
    },
  ];
  await registry.push(order("string id = 1; string note = 2;"));
  await registry.push(order('string id = 1; reserved 2; reserved "note"; int64 cents = 3;'));
  const [old, next] = await registry.history("both-value");
  const access = { url: `${server.url}/registry`, credentialsFile: writeCredentials() };
  const messageOf = async (schemaId = 0) => {
    // A consumer of its own, that has asked nothing before.
    const file = await createRegistrySchemaIds(access).fileOf(schemaId);
    const message = file?.messages.find(({ name }) => name === "Order");
    if (message === undefined) throw new Error(`schema ${schemaId} has no Order`);
    return message;
  };
  const types = { old: await messageOf(old?.schemaId), next: await messageOf(next?.schemaId) };
  const frames = [
    encodeWire(
      old?.schemaId ?? 0,
      types.old,
      create(types.old, { id: "o1", note: "n" } as MessageInitShape<DescMessage>),
    ),
    encodeWire(
      next?.schemaId ?? 0,
      types.next,
      create(types.next, { id: "o2", cents: 7n } as MessageInitShape<DescMessage>),
    ),
  ];
  const confluent = new ProtobufDeserializer(
    new SchemaRegistryClient({
      baseURLs: [access.url],
      basicAuthCredentials: { credentialsSource: "USER_INFO", userInfo: `cadre:${server.adminKey}` },
    }),
    SerdeType.VALUE,
    {},
  );
  const read: unknown[] = [];
  for (const frame of frames) {
    const { schemaId, messageIndexes, bytes } = decodeWire(frame);
    const written = await createRegistrySchemaIds(access).fileOf(schemaId);
    expect(written && messageAt(written, messageIndexes)?.typeName).toBe("both.v1.Order");
    read.push(toJson(types.old, decodeMessage(types.old, bytes)), toJson(types.next, decodeMessage(types.next, bytes)));
    expect(await confluent.deserialize("both", Buffer.from(frame))).toMatchObject({ $typeName: "both.v1.Order" });
  }
  expect(read).toEqual([{ id: "o1", note: "n" }, { id: "o1" }, { id: "o2" }, { id: "o2", cents: "7" }]);
});

test("a contract whose imports lead out of a directory is written nowhere", async () => {
  const cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const name = "../../escaped.proto";
  await cadre.schemas.register(name, { schema: 'syntax = "proto3"; package out.v1; message Escaped {}' });
  await cadre.schemas.register("out/v1/user.proto", {
    schema: `syntax = "proto3"; package out.v1; import "${name}"; message User { Escaped escaped = 1; }`,
    references: [{ name, subject: name, version: 1 }],
  });
  const generated = generateSdk(cadre, ["out/v1/user.proto"], join(home, "out-sdk"));
  await expect(generated).rejects.toThrow(`${name} is no path that a file can be written to`);

  write("out/a/b/proto/out/v1/user.proto", `syntax = "proto3"; package out.v1; import "${name}"; message User {}`);
  write("out/a/escaped.proto", 'syntax = "proto3"; package out.v1;');
  const source = await readContracts(join(home, "out/a/b/proto"), []);
  await expect(lintContracts(join(home, "out/a/b/proto"), source)).rejects.toThrow(`${name} is no path`);
  expect(existsSync(join(tmpdir(), "escaped.proto"))).toBe(false);
});

test("the SDK of a user's contract compiles, and calls a server of that contract", async () => {
  write(
    "shop/proto/shop/v1/money.proto",
    'syntax = "proto3"; package shop.v1;\n// An amount.\nmessage Money { string currency = 1; int64 cents = 2; }',
  );
  write(
    "shop/proto/shop/v1/order.proto",
    `syntax = "proto3"; package shop.v1; import "shop/v1/money.proto"; import "google/protobuf/timestamp.proto";
    // Takes orders.
    service OrderService { rpc GetOrder(GetOrderRequest) returns (GetOrderResponse); }
    message GetOrderRequest { string id = 1; }
    message GetOrderResponse { string id = 1; Money total = 2; google.protobuf.Timestamp at = 3; }`,
  );
  expect((await contracts(["push", join(home, "shop/proto")])).code).toBe(0);
  const out = join(home, "app/node_modules/shop-sdk");
  const generate = ["sdk", "generate", "shop/v1/order.proto", "--out", out, "--name", "shop-sdk"];
  const flags = ["--url", server.url, "--api-key", server.adminKey];
  const generated = await runProgram(process.execPath, [program, ...generate, ...flags], { timeoutMs: 60_000 });
  expect([generated.code, generated.stderr]).toEqual([0, ""]);
  expect(readFileSync(join(out, "src/shop/v1/money_pb.d.ts"), "utf8")).toContain("An amount.");
  expect(generated.stdout).toBe(`shop/v1/order.proto: version 1\nshop-sdk is in ${out}\n`);
  const foreign = await runProgram(process.execPath, [program, ...generate.slice(0, 4), home, ...flags], {
    timeoutMs: 60_000,
  });
  expect([foreign.code, foreign.stderr]).toEqual([2, expect.stringContaining("files that were not generated")]);

  for (const scope of ["@bufbuild", "@connectrpc", "@types"]) {
    symlinkSync(join(root, "node_modules", scope), join(home, "app/node_modules", scope));
  }
  write("app/package.json", JSON.stringify({ type: "module" }));
  const compilerOptions = { strict: true, noEmit: true, target: "es2024", module: "nodenext", types: ["node"] };
  write("app/tsconfig.json", JSON.stringify({ compilerOptions, files: ["main.ts"] }));
  write(
    "app/main.ts",
    `import { createServer } from "node:http";
    import type { AddressInfo } from "node:net";
    import { connectNodeAdapter, createConnectTransport } from "@connectrpc/connect-node";
    import { createOrderServiceClient, type GetOrderResponse, OrderService } from "shop-sdk";
    const server = createServer(connectNodeAdapter({ routes(router) {
      router.service(OrderService, { getOrder: ({ id }) => ({ id, total: { currency: "EUR", cents: 42n } }) });
    } }));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const client = createOrderServiceClient(createConnectTransport({ baseUrl: \`http://127.0.0.1:\${port}\`, httpVersion: "1.1" }));
    const order: GetOrderResponse = await client.getOrder({ id: "o1" });
    const cents: bigint = order.total?.cents ?? 0n;
    // @ts-expect-error there is no such field
    void order.nothing;
    console.log(order.id, order.total?.currency, cents);
    server.close();
    server.closeAllConnections();`,
  );
  const compiled = await runProgram(join(root, "node_modules/.bin/tsc"), ["-p", join(home, "app")], {
    timeoutMs: 60_000,
  });
  expect([compiled.code, compiled.stdout]).toEqual([0, ""]);
  const ran = await runProgram(process.execPath, [join(home, "app/main.ts")], { timeoutMs: 30_000 });
  expect([ran.stderr, ran.stdout]).toEqual(["", "o1 EUR 42n\n"]);
});
