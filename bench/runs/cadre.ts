import { rm } from "node:fs/promises";
import { create, fromJson, toBinary } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { RunService, StartRunRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type Cadre, createCadre } from "@cadre/sdk";
import packageJson from "../../package.json" with { type: "json" };
import { startCadre, type Topology } from "../../test/support/cadre.ts";
import type { Contestant, RunRequest, StartedContestant } from "./contestant.ts";
import { stepsOfRun } from "./contestant.ts";
import { chainOf } from "./graph.ts";
import { postgresDiskUse } from "./postgres-disk-use.ts";
import { openPostgresProbe, type PostgresProbe } from "./postgres-probe.ts";
import { newDirectory } from "./scratch.ts";
import { startApplication } from "./started-child.ts";

/** How Cadre runs, and who does the steps. */
export interface CadreVariant {
  readonly topology: Topology;
  /** The server itself, by its built-in `echo`; or another process, by a tool that it serves through the SDK. */
  readonly stepsBy: "server" | "worker";
}

/** A Cadre that runs, and more of it than is compared. */
export interface StartedCadre extends StartedContestant {
  readonly client: Cadre;
  /** Of its PostgreSQL. */
  readonly probe: PostgresProbe;
}

const agent = "bench-chain";
const input = { text: "hello" };
const answerWithinSeconds = 60;

/** Cadre as `npm start` runs it, called through its public port. */
export function cadre(variant: CadreVariant = { topology: "dev", stepsBy: "server" }): Contestant & {
  start(): Promise<StartedCadre>;
} {
  return {
    name: nameOf(variant),
    settings: [
      "`npm start`: all services in one process, and its PostgreSQL; a graph of tool steps that call the built-in `echo`, which declares that it has no side effects",
      "log level `warn` like the others'; the org's limits raised to their maxima, so that its quotas count and refuse nothing",
    ],
    start: () => startVariant(variant),
  };
}

function nameOf({ topology, stepsBy }: CadreVariant): string {
  const base = `cadre ${packageJson.version}`;
  const difference = [...(topology === "mesh" ? ["mesh"] : []), ...(stepsBy === "worker" ? ["steps by a worker"] : [])];
  return [base, ...difference].join(", ");
}

async function startVariant({ topology, stepsBy }: CadreVariant): Promise<StartedCadre> {
  await using scope = new AsyncDisposableStack();
  const directory = await newDirectory("cadre");
  scope.defer(() => rm(directory, { recursive: true }));
  const server = await startCadre({ topology, dataDirectory: directory, settings: { CADRE_LOG_LEVEL: "warn" } });
  scope.defer(() => server.dispose());
  const probe = await openPostgresProbe(directory);
  scope.defer(() => probe.close());
  const client = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  for (const { name, maxValue } of await client.limits.list()) await client.limits.set(name, maxValue);
  const pids = [server.pid, probe.pid];
  if (stepsBy === "worker") {
    const file = new URL("./worker.ts", import.meta.url).pathname;
    const worker = await startApplication(file, [server.url, server.adminKey]);
    scope.defer(() => worker.stop());
    pids.push(worker.pid);
  }
  const [model] = await Array.fromAsync(client.models.list());
  const graph = chainOf(stepsBy === "server" ? "echo" : "bench_echo", stepsOfRun);
  await client.agents.register({ name: agent, model: model?.name ?? "", graph });
  const run = await client.runs.start({ agent, input });
  await run.result();
  const running = scope.move();
  return {
    client,
    probe,
    request: requestOf(server.url, server.adminKey),
    pids: () => pids,
    diskUse: () => postgresDiskUse(directory, probe),
    stop: () => running.disposeAsync(),
  };
}

function requestOf(url: string, apiKey: string): RunRequest {
  const request = create(StartRunRequestSchema, {
    definition: { case: "agent", value: agent },
    input: fromJson(ValueSchema, input),
    wait: { seconds: BigInt(answerWithinSeconds) },
  });
  return {
    origin: url,
    path: `/${RunService.typeName}/StartRun`,
    headers: {
      "content-type": "application/proto",
      "connect-protocol-version": "1",
      "connect-timeout-ms": `${answerWithinSeconds * 1_000}`,
      authorization: `Bearer ${apiKey}`,
    },
    body: Buffer.from(toBinary(StartRunRequestSchema, request)).toString("base64"),
    answer: "StartRunResponse",
  };
}
