import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { runGuide } from "../support/guide.ts";

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
  const { commands, code, output } = await runGuide("runs.md", home, server);
  expect(commands).toBeGreaterThan(8);
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
