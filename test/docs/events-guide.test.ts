import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { putAside } from "../support/dead-letters.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";

const root = join(import.meta.dirname, "../..");
const home = mkdtempSync(join(tmpdir(), "cadre guide "));
let database: TestDatabase;
let server: RunningCadre;

beforeAll(async () => {
  database = await createTestDatabase();
  server = await startCadre({ settings: { CADRE_DATABASE_URL: database.url } });
  await putAside(database.url, createCadre({ baseUrl: server.url, apiKey: server.adminKey }), 2);
}, 90_000);
afterAll(async () => {
  await server.dispose();
  await database.drop();
  rmSync(home, { recursive: true, force: true });
});

test("the guide's commands run, one after the other", async () => {
  const guide = readFileSync(join(root, "docs/guides/events.md"), "utf8");
  const commands = [...guide.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, code]) => code);
  expect(commands.length).toBeGreaterThan(3);
  const script = [
    "set -euo pipefail",
    `cadre() { "${process.execPath}" "${join(root, "cli/bin/cadre.js")}" "$@"; }`,
    ...commands,
  ].join("\n");
  const { code, output } = await run(script);
  expect(code, output).toBe(0);
  expect(output.match(/dlt_\w{26} is requeued/g)).toHaveLength(2);
  expect(output).toMatch(/dlt_\w{26} is discarded/);
  expect(output).toContain('"change": "TURN_CHANGE_STARTED"');
  expect(output).toContain('"state":"DEAD_LETTER_STATE_REQUEUED"');
  expect(output).toContain('"state":"DEAD_LETTER_STATE_DISCARDED"');
}, 60_000);

function run(script: string): Promise<{ readonly code: number | null; readonly output: string }> {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CADRE_")));
  const env = { ...clean, HOME: home, NO_COLOR: "1", CADRE_URL: server.url, CADRE_API_KEY: server.adminKey };
  return new Promise((resolve) => {
    const child = spawn("bash", ["-c", script], { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk));
    child.once("close", (code) => resolve({ code, output }));
  });
}
