import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { type Cadre, createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

const root = join(import.meta.dirname, "../..");
let server: RunningCadre;
let cadre: Cadre;
let app: ChildProcess | undefined;

beforeAll(async () => {
  server = await startCadre();
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
}, 90_000);
afterAll(async () => {
  app?.kill("SIGKILL");
  await server.dispose();
});

interface Started {
  readonly output: () => string;
  readonly ended: Promise<number | null>;
}

function startExample(): Started {
  const child = spawn(process.execPath, [join(root, "examples/04-durable-run/main.ts")], {
    env: { ...process.env, CADRE_URL: server.url, CADRE_API_KEY: server.adminKey },
    stdio: ["ignore", "pipe", "pipe"],
  });
  app = child;
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk));
  return { output: () => output, ended: new Promise((resolve) => child.once("close", resolve)) };
}

test("the run of example 04 survives a kill of the server, is approved, and pays each order back once", async () => {
  const { output, ended } = startExample();
  await expect.poll(output, { timeout: 30_000 }).toContain("cadre runs approve");
  const [, runId = ""] = /started (run_\w+)/.exec(output()) ?? [];
  expect(output()).toContain('"amount":19');
  await server.kill();
  server = await server.restart();
  const { step } = await cadre.runs
    .approve(runId, "approved", { reason: "tested" })
    .then((decided) => ({ step: decided.name }));
  expect(step).toBe("approved");
  expect(await ended, output()).toBe(0);
  expect(output()).toMatch(/A-1001: 19, A-1002: 23, for key_\w+/);
  expect(output().match(/the bank pays/g)).toHaveLength(2);
}, 120_000);

test("a run that is refused is told, and pays nothing", async () => {
  const { output, ended } = startExample();
  await expect.poll(output, { timeout: 30_000 }).toContain("cadre runs approve");
  const [, runId = ""] = /started (run_\w+)/.exec(output()) ?? [];
  await cadre.runs.refuse(runId, "approved", { reason: "not this time" });
  expect(await ended, output()).toBe(1);
  expect(output()).toMatch(/failed: step approved: /);
  expect(output()).not.toContain("the bank pays");
}, 60_000);
