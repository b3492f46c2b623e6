import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

const root = join(import.meta.dirname, "../..");
const home = mkdtempSync(join(tmpdir(), "cadre guide "));
let server: RunningCadre;

beforeAll(async () => {
  server = await startCadre();
}, 90_000);
afterAll(async () => {
  await server.dispose();
  rmSync(home, { recursive: true, force: true });
});

test("the guide's commands run, one after the other", async () => {
  const guide = readFileSync(join(root, "docs/guides/registry.md"), "utf8");
  const commands = [...guide.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, code]) => code);
  expect(commands.length).toBeGreaterThan(3);
  const script = [
    "set -euo pipefail",
    `cadre() { "${process.execPath}" "${join(root, "cli/bin/cadre.js")}" "$@"; }`,
    ...commands,
  ].join("\n");
  const { code, output } = await run(script);
  expect(code, output).toBe(0);
  expect(output).toMatch(/shop\/v1\/order\.proto: version 1, id \d+\ndigest sha256:/);
  expect(output).toContain("its type was int32 and is string (FIELD_WIRE_COMPATIBLE_TYPE)");
  expect(output).toContain("refused: exit code 1");
  expect(output).toMatch(/^2 +\d+ +\S+ +key_\S+ +[0-9a-f]{12} +nobody has version 1 yet$/m);
  expect(output).toContain("int32 cents = 2;");
  expect(output).toContain("shop/v1/order.proto: version 2\norder-sdk is in ");
  expect(output).toContain("createOrderServiceClient");
}, 90_000);

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
