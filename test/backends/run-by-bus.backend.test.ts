import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cadre, createCadre, RunState, reasonName } from "@cadre/sdk";
import pino from "pino";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { envelopeHeader } from "../../services/runtime/bus/envelope.ts";
import { type KafkaEventBus, openKafkaEventBus } from "../../services/runtime/bus/kafka-event-bus.ts";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { type ProgramResult, runProgram } from "../support/run-program.ts";
import { requestEvent } from "../support/run-requests.ts";
import { until } from "../support/settled.ts";
import { crashKafka, startKafka } from "./kafka-control.ts";
import { removeTopics } from "./kafka-topics.ts";

// `cadre runs start --via bus` over TLS and SASL: the request goes to a server
// through the broker, and what comes of it back.

const log = pino({ level: "silent" });
const connection = inject("secureKafka");
let directory: string;
let server: RunningCadre;
let cadre: Cadre;
let bus: KafkaEventBus;
let settings: Readonly<Record<string, string>>;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "cadre run by bus "));
  const { tls, sasl, brokers } = connection;
  const [authority, password] = [join(directory, "authority.pem"), join(directory, "password")];
  await writeFile(authority, tls?.authority ?? "");
  await writeFile(password, `${sasl?.password}\n`, { mode: 0o600 });
  settings = {
    CADRE_BUS: "kafka",
    CADRE_KAFKA_BROKERS: brokers.join(","),
    CADRE_KAFKA_TLS: "true",
    CADRE_KAFKA_CA_FILE: authority,
    CADRE_KAFKA_USERNAME: sasl?.username ?? "",
    CADRE_KAFKA_PASSWORD_FILE: password,
  };
  const made = await program("topics", "apply", "--replication", "1");
  expect(made.code, made.stderr).toBe(0);
  server = await startCadre({ settings });
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  bus = openKafkaEventBus({ connection: async () => connection, log, sessionMs: 6_000 });
  await writeFile(
    join(directory, "say.yaml"),
    `name: say
steps:
  - name: say
    tool: { tool: echo, arguments: { text: { $ref: input } } }
output: { $ref: steps.say.output.text }
`,
  );
  await writeFile(
    join(directory, "fail.yaml"),
    "name: fail\nsteps: [{ name: wait, signal: { signal: never, expires_after: 1s } }]\n",
  );
  await writeFile(join(directory, "wait.yaml"), "name: wait\nsteps: [{ name: wait, signal: { signal: go } }]\n");
}, 180_000);
afterAll(async () => {
  await bus?.close();
  await server?.dispose();
  await startKafka();
  await removeTopics(
    connection,
    busTopics.map(({ name }) => name),
  );
  await rm(directory, { recursive: true, force: true });
});

function program(...args: readonly string[]): Promise<ProgramResult> {
  const environment = {
    ...settings,
    NO_COLOR: "1",
    CADRE_URL: server?.url ?? "",
    CADRE_API_KEY: server?.adminKey ?? "",
  };
  const set = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return runProgram("env", [...set, process.execPath, "cli/bin/cadre.js", ...args], { timeoutMs: 240_000 });
}

const start = (graph: string, ...args: readonly string[]) =>
  program("runs", "start", "--via", "bus", "-f", join(directory, graph), ...args);

test("a run that is asked for through the broker gives its result through the broker, once for a key", {
  timeout: 300_000,
}, async () => {
  const first = await start("say.yaml", "--input", '"hello"', "--wait", "--key", "say-1", "--json");
  expect(first.code, first.stderr).toBe(0);
  const told = JSON.parse(first.stdout) as { readonly run_id: string };
  expect(told).toMatchObject({ state: "succeeded", reason: "", output: "hello" });

  // Asked for again by who did not get the answer: the same run.
  const again = await start("say.yaml", "--input", '"hello"', "--key", "say-1");
  expect(again.code, again.stderr).toBe(0);
  const other = await start("fail.yaml", "--wait", "--key", "fail-1");
  expect(other).toMatchObject({ code: 1, stderr: expect.stringMatching(/run_\w{26} failed: WAIT_EXPIRED/) });
  // Not often: each look asks the broker for the lag of every group.
  await expect.poll(requestsHandled, { timeout: 60_000, interval: 1_000 }).toBeGreaterThanOrEqual(3);
  const runs = await Array.fromAsync(cadre.runs.list({ labels: { "cadre.request": "say-1" } }));
  expect(runs.map(({ runId }) => runId)).toEqual([told.run_id]);

  const { stdout } = await program("events", "offsets", "list", "--json");
  expect(stdout).not.toContain("cadre-cli");
});

test("a request that is refused tells so at once, and a forged one is a dead letter", {
  timeout: 120_000,
}, async () => {
  const reused = await start("say.yaml", "--input", '"bye"', "--wait", "--key", "say-1");
  expect(reused).toMatchObject({ code: 1, stderr: expect.stringContaining("IDEMPOTENCY_KEY_REUSED") });

  const signed = await cadre.runs.signRequest({ agent: "nobody" });
  const forged = await requestEvent({ ...signed, request: new Uint8Array([1, 2, 3]) });
  await bus.publish([forged]);
  const letters = () => Array.fromAsync(cadre.deadLetters.list({ topic: forged.topic }));
  const find = async () => (await letters()).find(({ eventId }) => eventId === forged.headers[envelopeHeader.eventId]);
  await until(async () => (await find()) !== undefined);
  expect(reasonName((await find())?.reason ?? 0)).toBe("UNAUTHENTICATED");
});

test("with the broker stopped the wait ends in time and says what to do, and the run is not lost", {
  timeout: 300_000,
}, async () => {
  const waiting = start("wait.yaml", "--wait", "--timeout", "20s", "--key", "wait-1");
  const find = async () => (await Array.fromAsync(cadre.runs.list({ labels: { "cadre.request": "wait-1" } })))[0];
  await until(async () => (await find()) !== undefined);
  await crashKafka();
  const { code, stderr } = await waiting;
  expect(code, stderr).toBe(69);
  expect(stderr).toMatch(/nothing was told of the run within 20 s: .*Kafka cannot be reached/);
  expect(stderr).toContain("cadre runs list --label cadre.request=wait-1");

  // Nothing can be asked for meanwhile, and nothing is: it says what is away.
  const refused = await start("say.yaml", "--wait");
  expect(refused).toMatchObject({
    code: 69,
    stderr: expect.stringMatching(/Kafka cannot be reached[^]*Start the brokers/),
  });

  await startKafka();
  const run = await cadre.runs.get((await find())?.runId ?? "");
  await cadre.runs.signal(run.runId, "go", "on");
  expect(await run.result()).toEqual({ wait: "on" });
  expect((await run.refresh()).state).toBe(RunState.SUCCEEDED);
});

/** How many requests the server has acknowledged. */
async function requestsHandled(): Promise<number> {
  const metrics = await (await fetch(new URL("/metrics", server.adminUrl))).text();
  const line = metrics
    .split("\n")
    .find((text) => /^cadre_consumer_events_total\{.*requested\.v1".*"handled"/.test(text));
  return Number(/} (\d+)/.exec(line ?? "")?.[1] ?? 0);
}
