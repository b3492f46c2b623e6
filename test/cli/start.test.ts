import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { runProgram } from "../support/run-program.ts";

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
const directory = mkdtempSync(join(tmpdir(), "cadre start "));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("a server one part of which cannot start says why and ends, whatever its other parts wait for", async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const address = other.address();
  if (address === null || typeof address === "string") throw new Error("it listens on no port");
  // The admin port is taken, and the services beside it wait for a database that does not come.
  const flags = ["dev", "--data", directory, "--port", "0", "--admin-port", `${address.port}`];
  flags.push("--database-url", "postgres://cadre@127.0.0.1:1/cadre");
  const { code, stderr } = await runProgram(process.execPath, [program, ...flags]);
  other.close();
  expect(stderr).toMatch(`port ${address.port} on 127.0.0.1 is in use`);
  expect(code).toBe(78);
}, 90_000);
