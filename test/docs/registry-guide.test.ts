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
  const { commands, code, output } = await runGuide("registry.md", home, server);
  expect(commands).toBeGreaterThan(3);
  expect(code, output).toBe(0);
  expect(output).toMatch(/shop\/v1\/order\.proto: version 1, id \d+\ndigest sha256:/);
  expect(output).toContain("its type was int32 and is string (FIELD_WIRE_COMPATIBLE_TYPE)");
  expect(output).toContain("refused: exit code 1");
  expect(output).toMatch(/^rev_\w{26} +open +key_\w+ .*orders are few yet/m);
  expect(output).toMatch(/^2 +\d+ +\S+ +key_\S+ +[0-9a-f]{12} +nobody has version 1 yet$/m);
  expect(output).toContain("int32 cents = 2;");
  expect(output).toContain("shop/v1/order.proto: version 2\norder-sdk is in ");
  expect(output).toContain("createOrderServiceClient");
}, 90_000);
