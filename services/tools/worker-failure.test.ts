import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { JsonObject } from "@bufbuild/protobuf";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { ExecutionProgress, ToolExecutionService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import type { ConnectError } from "@connectrpc/connect";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { startTestWorker } from "../../test/support/test-worker.ts";
import {
  headersOf,
  principalOf,
  startToolsReplicas,
  type ToolsReplica,
  type ToolsReplicas,
} from "../../test/support/tools-replicas.ts";
import { witness } from "../../test/support/witness-tool.ts";
import { AppError } from "../runtime/errors/app-error.ts";
import { fromConnectError } from "../runtime/errors/failure.ts";
import { newId } from "../runtime/ids/id.ts";

let world: ToolsReplicas;
let first: ToolsReplica;
let second: ToolsReplica;
let directory: string;
let file: string;
const revoked = new Set<string>();
const wakes = new Set<() => void>();

beforeAll(async () => {
  world = await startToolsReplicas(2, {
    principals: {
      assertMayAct: async ({ subject }) => {
        if (revoked.has(subject)) throw new AppError("PRINCIPAL_REVOKED", "revoked");
      },
      onChange(wake) {
        wakes.add(wake);
        return () => wakes.delete(wake);
      },
    },
  });
  [first, second] = world.replicas as [ToolsReplica, ToolsReplica];
});
afterAll(() => world.stop());

let processes: ChildProcess[];
let principal: ReturnType<typeof principalOf>;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "cadre-tools-"));
  file = join(directory, "witness");
  writeFileSync(file, "");
  processes = [];
  principal = principalOf(newId("org"));
});
afterEach(async () => {
  await Promise.all(processes.map(kill));
  rmSync(directory, { recursive: true });
});

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

/** Starts a worker process whose one tool appends to the witness file; resolves when it is connected. */
async function startWorkerProcess(): Promise<ChildProcess> {
  const script = fileURLToPath(new URL("../../test/support/tool-worker-process.ts", import.meta.url));
  const child = spawn(process.execPath, [script, first.url, file, JSON.stringify(headersOf(principal))], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  processes.push(child);
  await once(child.stdout ?? child, "data");
  return child;
}

function lines(): string[] {
  return readFileSync(file, "utf8").split("\n").filter(Boolean);
}

async function execution(key: string, input: JsonObject = {}, replica = second) {
  const client = replica.client(ToolExecutionService, principal);
  const { tools } = await client.resolveTools({ names: ["witness"] });
  const [tool] = tools;
  const parts: string[] = [];
  const { toolId, digest } = tool ?? { toolId: "", digest: "" };
  const request = { toolId, digest, arguments: input, idempotencyKey: key, epoch: 1n, attempt: 1 };
  const ids = { runId: newId("run"), stepId: newId("stp") };
  for await (const { part } of client.executeTool({ ...request, ...ids })) {
    if (part.case === "error") parts.push(Reason[part.value.reason] ?? "");
    else parts.push(part.case ?? "");
  }
  return parts;
}

function cancel(key: string) {
  return second.client(ToolExecutionService, principal).cancelExecution({ idempotencyKey: key, epoch: 1n });
}

test("a worker that is killed loses its calls to another one, under the same key", async () => {
  const killed = await startWorkerProcess();
  const running = execution("the key");
  await expect.poll(() => lines().length).toBeGreaterThan(0);
  const heir = await startWorkerProcess();
  const killedAt = performance.now();
  await kill(killed);
  const written = lines();
  expect(written.every((line) => line === `the key 1 ${killed.pid}`)).toBe(true);
  await expect.poll(() => lines().at(-1)).toBe(`the key 2 ${heir.pid}`);
  // Its lease, of 6 seconds from its last heartbeat, had to end first: it might have come back.
  expect(performance.now() - killedAt).toBeGreaterThan(3_000);
  expect((await cancel("the key")).progress).toBe(ExecutionProgress.PARTIAL);
  expect(await running).toEqual(["started", "started", "CANCELLED"]);
});

test("a cancelled handler stops within a second, and nothing starts afterwards", async () => {
  await startWorkerProcess();
  const timesMs: number[] = [];
  for (let round = 0; round < 10; round++) {
    const key = `round ${round}`;
    const running = execution(key);
    await expect.poll(() => lines().some((line) => line.startsWith(`${key} `))).toBe(true);
    const cancelledAt = performance.now();
    expect((await cancel(key)).progress).toBe(ExecutionProgress.PARTIAL);
    timesMs.push(performance.now() - cancelledAt);
    const { size } = statSync(file);
    expect(await running).toEqual(["started", "CANCELLED"]);
    await delay(100);
    expect(statSync(file).size).toBe(size);
  }
  // The median: what else the machine does is not the handler's.
  expect(timesMs.toSorted((a, b) => a - b)[5]).toBeLessThan(1_000);
});

test("a handler that ignores the signal ends the call all the same, and the receipt says that it may still run", async () => {
  await startWorkerProcess();
  const running = execution("deaf", { deaf: true });
  await expect.poll(() => lines().length).toBeGreaterThan(0);
  expect((await cancel("deaf")).progress).toBe(ExecutionProgress.MAY_STILL_RUN);
  expect(await running).toEqual(["started", "CANCELLED"]);
  const { size } = statSync(file);
  await expect.poll(() => statSync(file).size).toBeGreaterThan(size);
});

test("a worker whose key is revoked gets no more calls", async () => {
  const other = principalOf(principal.orgId);
  const client = first.client(ToolWorkerService, other);
  const worker = await startTestWorker({ client, tools: [witness], handle: () => "done" });
  expect(await execution("before")).toEqual(["started", "result"]);
  revoked.add(other.subject);
  for (const wake of wakes) wake();
  expect(await worker.ended).toBe("PRINCIPAL_REVOKED");
  await expect(execution("after")).rejects.toSatisfy(
    (error: ConnectError) => fromConnectError(error)?.reason === "TOOL_UNAVAILABLE",
  );
  expect(worker.received).toHaveLength(1);
  worker.vanish();
});

test("a replica that goes away sends its workers elsewhere, and their calls go on", async () => {
  const finish = Promise.withResolvers<void>();
  const worker = await startTestWorker({
    client: first.client(ToolWorkerService, principal),
    reports: second.client(ToolWorkerService, principal),
    tools: [witness],
    handle: () => finish.promise.then(() => "done"),
  });
  const running = execution("moved");
  const left = execution("moved", {}, first);
  await expect.poll(() => worker.running).toBe(1);
  first.drain();
  // Who follows the call there is told to ask again elsewhere.
  await expect(left).rejects.toSatisfy((error: ConnectError) => fromConnectError(error)?.reason === "SHUTTING_DOWN");
  expect(await worker.ended).toBe("ended");
  await worker.reconnect(second.client(ToolWorkerService, principal));
  finish.resolve();
  expect(await running).toEqual(["started", "result"]);
  expect(worker.received).toHaveLength(1);
  worker.vanish();
});
