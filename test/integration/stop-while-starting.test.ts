import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { isProcessAlive, readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { topologies } from "../support/cadre.ts";

// Ctrl-C, a moment after the start: what is there by then is ended, and so is what comes a moment later.

test.each(topologies)("%s, told to end while its PostgreSQL starts, leaves nothing behind", async (topology) => {
  const dataDirectory = mkdtempSync(join(tmpdir(), "cadre test "));
  onTestFinished(() => rmSync(dataDirectory, { recursive: true, force: true }));
  const flags = [topology, "--json", "--data", dataDirectory, "--port", "0", "--admin-port", "0"];
  const child = spawn(process.execPath, ["cli/bin/cadre.js", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (printed += text));
  }
  const exited = once(child, "exit");
  const cluster = join(dataDirectory, "postgres");
  await expect.poll(() => readServerProcess(cluster), { timeout: 60_000, interval: 5 }).toBeDefined();
  const server = await readServerProcess(cluster);
  child.kill("SIGTERM");
  expect(await exited, printed).toEqual([0, null]);
  expect(printed).not.toContain('"url"');
  expect(await isProcessAlive(server?.pid ?? 0)).toBe(false);
  expect(await readServerProcess(cluster)).toBeUndefined();
});
