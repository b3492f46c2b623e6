import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { putAside } from "../support/dead-letters.ts";
import { runGuide } from "../support/guide.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";

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
  const { commands, code, output } = await runGuide("events.md", home, server);
  expect(commands).toBeGreaterThan(3);
  expect(code, output).toBe(0);
  expect(output.match(/dlt_\w{26} is requeued/g)).toHaveLength(2);
  expect(output).toMatch(/dlt_\w{26} is discarded/);
  expect(output).toContain('"change": "TURN_CHANGE_STARTED"');
  expect(output).toContain('"state":"DEAD_LETTER_STATE_REQUEUED"');
  expect(output).toContain('"state":"DEAD_LETTER_STATE_DISCARDED"');
}, 60_000);
