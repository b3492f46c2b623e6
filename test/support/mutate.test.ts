import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { assertMutated, type Edit, mutatedEnvironment } from "./mutate.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "mutate "));
});
afterAll(() => rmSync(directory, { recursive: true }));

const module = "services/orchestrator/domain/shard.ts";
const program = `import(${JSON.stringify(new URL(`../../${module}`, import.meta.url).href)}).then((m) => console.log(m.shardCount))`;

async function run(edits: readonly Edit[], log: string): Promise<{ readonly code: number; readonly out: string }> {
  const env = { ...process.env, ...mutatedEnvironment(edits, log) };
  try {
    const { stdout } = await promisify(execFile)(process.execPath, ["-e", program], { env });
    return { code: 0, out: stdout.trim() };
  } catch (error) {
    const { code, stderr } = error as { code: number; stderr: string };
    return { code, out: stderr };
  }
}

test("a piece of a module is replaced, and it is on record that it was", async () => {
  const log = join(directory, "made");
  const edits = [{ module, find: "shardCount = 64", replace: "shardCount = 7" }];
  expect(() => assertMutated(edits, log)).toThrow(/no process has loaded/);
  expect(await run(edits, log)).toEqual({ code: 0, out: "7" });
  expect(() => assertMutated(edits, log)).not.toThrow();
});

test.each([
  ["is not there", "shardCount = 65"],
  ["is there more than once", "shard"],
])("a piece that %s ends the process", async (_, find) => {
  const log = join(directory, "never");
  const { code, out } = await run([{ module, find, replace: "" }], log);
  expect(code).toBe(70);
  expect(out).toContain(`mutation: ${module} has`);
  expect(() => assertMutated([{ module, find, replace: "" }], log)).toThrow(/no process has loaded/);
});
