import { execFile } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function db(...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { ...process.env, CADRE_DATABASE_URL: database.url, NO_COLOR: "1" };
    const child = execFile(process.execPath, [program, "db", ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
    child.stdin?.end();
  });
}

interface Status {
  readonly services: readonly {
    readonly service: string;
    readonly migrations: readonly { readonly name: string; readonly applied_at: string | null }[];
  }[];
}

async function applied(): Promise<Readonly<Record<string, number>>> {
  const { stdout } = await db("status", "--json");
  const { services } = JSON.parse(stdout) as Status;
  return Object.fromEntries(
    services.map(({ service, migrations }) => [service, migrations.filter((step) => step.applied_at !== null).length]),
  );
}

test("the schemas go up, down by one service, and up again", async () => {
  expect(new Set(Object.values(await applied()))).toEqual(new Set([0]));
  expect(await db("migrate")).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("tools: 0001-initial applied"),
  });
  const up = await applied();
  expect(Math.min(...Object.values(up))).toBeGreaterThan(0);
  expect(await db("migrate")).toMatchObject({ code: 0, stderr: expect.stringContaining("up to date") });

  const down = await db("down", "--service", "tools", "--to", "", "--yes", "--json");
  expect(down.code, down.stderr).toBe(0);
  expect(await applied()).toEqual({ ...up, tools: 0 });
  expect(await db("migrate", "--service", "tools")).toMatchObject({ code: 0 });
  expect(await applied()).toEqual(up);
}, 60_000);

test.each([
  [2, ["down"], "--service"],
  [2, ["down", "--service", "tools"], "--yes"],
  [2, ["status", "--service", "nosuch"], "orchestrator"],
  [78, ["status", "--database-url", "nonsense"], "URL"],
] as const)("exit code %i: cadre db %j says what is missing", async (code, args, part) => {
  expect(await db(...args)).toMatchObject({ code, stderr: expect.stringContaining(part) });
});
