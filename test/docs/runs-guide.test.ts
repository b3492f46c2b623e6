import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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
  const guide = readFileSync(join(root, "docs/guides/runs.md"), "utf8");
  for (const [, name = "", content = ""] of guide.matchAll(/```yaml\n# (\S+)\n([\s\S]*?)```/g)) {
    writeFileSync(join(home, name), content);
  }
  const commands = [...guide.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, code]) => code);
  expect(commands.length).toBeGreaterThan(8);
  const script = [
    "set -euo pipefail",
    `cadre() { "${process.execPath}" "${join(root, "cli/bin/cadre.js")}" "$@"; }`,
    ...commands,
  ].join("\n");
  const { code, output } = await run(script);
  expect(code, output).toBe(0);
  expect(output).toContain("✓ succeeded");
  expect(output).toContain('{"total":"42","published":"42"}');
  expect(output).toContain("flowchart TD");
  expect(output).toMatch(/intact: \d+ entries, to the end of the run/);
  expect(output).toMatch(/replays: \d+ entries/);
  expect(output).toContain("It would cancel 1 run.");
  expect(output).toContain("seen is refused");
  // One key is one run.
  const [first, second] = [...output.matchAll(/^(run_\w{26}) is running$/gm)].map(([, runId]) => runId);
  expect(second).toBe(first);
}, 240_000);

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
