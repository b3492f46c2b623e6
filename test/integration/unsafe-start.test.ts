import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { runProgram } from "../support/run-program.ts";

// A server that must not start says why at once, on one line a setting, and
// opens no port. The settings themselves are tried one by one, and in pairs,
// beside the code that judges them.

const directory = mkdtempSync(join(tmpdir(), "cadre-unsafe-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const port = 20_000 + (process.pid % 20_000);

async function start(settings: Readonly<Record<string, string>>, flags: readonly string[] = []) {
  const startedAt = performance.now();
  const pairs = Object.entries({ CADRE_DATA: join(directory, "data"), CADRE_PORT: `${port}`, ...settings });
  const environment = pairs.map(([name, value]) => `${name}=${value}`);
  const result = await runProgram("env", [...environment, process.execPath, "cli/bin/cadre.js", "dev", ...flags]);
  return { ...result, tookMs: performance.now() - startedAt };
}

function isListening(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

const strongDatabase = "postgres://cadre:b3ef0d11c6@127.0.0.1:1/cadre";

test.each<[string, Record<string, string>, RegExp]>([
  ["production without a database", { CADRE_MODE: "production" }, /CADRE_DATABASE_URL is not set/],
  [
    "production with every origin admitted",
    { CADRE_MODE: "production", CADRE_DATABASE_URL: strongDatabase, CADRE_CORS_ORIGINS: "*" },
    /CADRE_CORS_ORIGINS/,
  ],
  [
    "production on a public address in plain text",
    { CADRE_MODE: "production", CADRE_DATABASE_URL: strongDatabase, CADRE_HOST: "0.0.0.0" },
    /CADRE_HOST is public/,
  ],
  [
    "production on a public address for whatever host is asked for",
    { CADRE_MODE: "production", CADRE_DATABASE_URL: strongDatabase, CADRE_HOST: "0.0.0.0" },
    /CADRE_AUTHORITIES is not set: name the hosts that callers use/,
  ],
  ["a host name with a port", { CADRE_AUTHORITIES: "cadre.example.com:443" }, /CADRE_AUTHORITIES is/],
  ["a misspelt setting", { CADRE_PROT: "8010" }, /CADRE_PROT is no setting; did you mean CADRE_PORT\?/],
  ["a port that is none", { CADRE_PORT: "eighty" }, /CADRE_PORT is "eighty": must be a whole number/],
  ["an unknown mode", { CADRE_MODE: "prod" }, /CADRE_MODE is "prod": must be embedded or production/],
])("%s: exit 78, no port, no value of a secret", async (_, settings, line) => {
  const { code, stderr, stdout, tookMs } = await start(settings);
  expect(code).toBe(78);
  expect(stderr).toMatch(line);
  expect(stdout).toBe("");
  expect(stderr).not.toContain("b3ef0d11c6");
  expect(await isListening()).toBe(false);
  expect(tookMs).toBeLessThan(10_000);
});

test("two problems are both told", async () => {
  const { code, stderr } = await start({ CADRE_PROT: "1", CADRE_MODE: "prod" });
  expect(code).toBe(78);
  expect(stderr).toMatch(/CADRE_PROT[\s\S]*CADRE_MODE|CADRE_MODE[\s\S]*CADRE_PROT/);
});

test("an unknown flag is a usage error, and names the help", async () => {
  const { code, stderr } = await start({}, ["--prot", "1"]);
  expect(code).toBe(2);
  expect(stderr).toContain("--help");
});
