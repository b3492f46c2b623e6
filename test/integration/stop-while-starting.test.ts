import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { isProcessAlive, readServerProcess } from "../../services/runtime/postgres/server-process.ts";
import { topologies } from "../support/cadre.ts";

// Ctrl-C, a moment after the start: what is there by then is ended, and so is what comes a moment later.

const moments = topologies.flatMap((topology) =>
  (["starting", "ready"] as const).map((status) => ({ topology, status })),
);

test.each(moments)(
  "$topology, told to end when its PostgreSQL is $status, leaves nothing behind",
  async ({ topology, status }) => {
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
    // By then it may be further than that.
    const reached = status === "starting" ? ["starting", "ready"] : ["ready"];
    const current = async () => (await readServerProcess(cluster))?.status;
    await expect.poll(current, { timeout: 60_000, interval: 5 }).toSatisfy((seen) => reached.includes(seen as string));
    const server = await readServerProcess(cluster);
    child.kill("SIGTERM");
    expect(await exited, printed).toEqual([0, null]);
    expect(printed).not.toContain('"url"');
    expect(await isProcessAlive(server?.pid ?? 0)).toBe(false);
    expect(await readServerProcess(cluster)).toBeUndefined();
  },
);
