import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";

/** Logs two warnings when it is told to, and says how many faults nobody caught. */
const program = `
  import { writeSync } from "node:fs";
  import { setImmediate } from "node:timers/promises";
  import { createLog } from ${JSON.stringify(new URL("./create-log.ts", import.meta.url).href)};
  let faults = 0;
  const { log, flush } = createLog({ mode: "embedded", level: "warn", dataDirectory: process.argv[1], name: "test" });
  process.on("uncaughtException", (error) => {
    faults += 1;
    if (faults < 100) log.error({ err: error }, "a fault");
  });
  process.send("ready");
  await new Promise((resolve) => process.once("message", resolve));
  for (const message of ["one", "two"]) {
    // With more than is gathered before it is written.
    log.warn({ more: "x".repeat(8_192) }, message);
    await setImmediate();
  }
  // When all that could be written was.
  process.once("beforeExit", flush);
  process.on("exit", () => writeSync(1, String(faults)));
  process.disconnect();
`;

test("a terminal that is closed is no fault, and the file has every line", async () => {
  const dataDirectory = await mkdtemp(join(tmpdir(), "cadre log "));
  onTestFinished(() => rm(dataDirectory, { recursive: true }));
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, dataDirectory], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  const { stdout, stderr } = child;
  if (stdout === null || stderr === null) throw new TypeError("the child's output is not piped");
  const faults = text(stdout);
  await once(child, "message");
  stderr.destroy();
  await once(stderr, "close");
  child.send("go");

  expect(await faults).toBe("0");
  const lines = (await readFile(join(dataDirectory, "logs", "test.log"), "utf8")).trim().split("\n");
  expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(["one", "two"]);
});

test("a disk that is full is no fault: the terminal still has the lines, and the process ends", async () => {
  const dataDirectory = await mkdtemp(join(tmpdir(), "cadre log "));
  onTestFinished(() => rm(dataDirectory, { recursive: true }));
  await mkdir(join(dataDirectory, "logs"));
  await symlink("/dev/full", join(dataDirectory, "logs", "test.log"));
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, dataDirectory], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  const { stdout, stderr } = child;
  if (stdout === null || stderr === null) throw new TypeError("the child's output is not piped");
  const printed = Promise.all([text(stdout), text(stderr)]);
  await once(child, "message");
  child.send("go");
  const [faults, lines] = await printed;
  expect(faults).toBe("0");
  expect(lines).toMatch(/one\n.*two\n.*the disk has no room/s);
});
