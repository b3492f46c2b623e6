import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

const root = join(import.meta.dirname, "../..");
let cadre: RunningCadre;

beforeAll(async () => {
  cadre = await startCadre();
}, 90_000);
afterAll(() => cadre?.dispose());

test("example 01 streams an answer", async () => {
  const env = { ...process.env, CADRE_URL: cadre.url, CADRE_API_KEY: cadre.adminKey };
  const script = join(root, "examples/01-first-stream/main.ts");
  const { stdout } = await promisify(execFile)(process.execPath, [script, "say The stream works."], { env });
  expect(stdout).toBe("The stream works.\n");
});
