import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { assertMutated, type Edit, mutatedEnvironment } from "../support/mutate.ts";

// A person talks to an agent with `cadre chat`. The server is killed under it,
// while an answer streams and while a tool runs, and started again: the
// conversation goes on by itself. The tool is that of example 02, in a process
// of its own; its calls are counted by a witness file.

const root = join(import.meta.dirname, "../..");
const directory = mkdtempSync(join(tmpdir(), "cadre chat "));
const witness = join(directory, "witness");
const hold = join(directory, "hold");
const mutationLog = join(directory, "mutations");

/** Writes each call down, with its key, and lets those of order A-1002 wait while the file `hold` says so. */
const watched: Edit = {
  module: "examples/02-own-tool/main.ts",
  find: "handler: async ({ order_id }, { print }) => {",
  replace: `handler: async ({ order_id }, { print, idempotencyKey }) => {
    const { appendFileSync, readFileSync } = await import("node:fs");
    appendFileSync(process.env.WITNESS, order_id + " " + idempotencyKey + "\\n");
    while (order_id === "A-1002" && readFileSync(process.env.HOLD, "utf8") === "hold") {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }`,
};

let server: RunningCadre;
let app: ChildProcess;
const children: ChildProcess[] = [];

beforeAll(async () => {
  writeFileSync(witness, "");
  writeFileSync(hold, "");
  server = await startCadre({ settings: { CADRE_SCRIPTED_WORD_MS: "15" } });
  app = spawn(process.execPath, [join(root, watched.module)], {
    env: {
      ...process.env,
      ...mutatedEnvironment([watched], mutationLog),
      CADRE_URL: server.url,
      CADRE_API_KEY: server.adminKey,
      WITNESS: witness,
      HOLD: hold,
    },
    stdio: ["ignore", "pipe", "ignore"],
  });
  await new Promise<void>((resolve, reject) => {
    app.stdout?.once("data", () => resolve());
    app.once("exit", (code) => reject(new Error(`the example ended with ${code}`)));
  });
  assertMutated([watched], mutationLog);
}, 120_000);
afterEach(() => {
  writeFileSync(witness, "");
  writeFileSync(hold, "");
  for (const child of children.splice(0)) child.kill("SIGKILL");
});
afterAll(async () => {
  app?.kill("SIGKILL");
  await server?.dispose();
  rmSync(directory, { recursive: true, force: true });
});

/** `cadre chat` as a process, fed and read through pipes. */
function chat(...args: readonly string[]) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CADRE_")));
  const child = spawn(process.execPath, [join(root, "cli/bin/cadre.js"), "chat", ...args], {
    cwd: directory,
    env: { ...clean, HOME: directory, NO_COLOR: "1", CADRE_URL: server.url, CADRE_API_KEY: server.adminKey },
    stdio: ["pipe", "pipe", "pipe"],
  });
  children.push(child);
  const printed = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk: Buffer) => (printed.stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (printed.stderr += chunk.toString()));
  return {
    printed,
    ended: new Promise<number | null>((resolve) => child.once("close", resolve)),
    say: (line: string) => child.stdin.write(`${line}\n`),
    leave: () => child.stdin.end(),
    /** Waits until the answers that were printed hold a text. */
    shows: (text: string) => vi.waitFor(() => expect(printed.stdout).toContain(text), { timeout: 45_000 }),
  };
}

/** The order and the key of each call that reached the tool. */
function calls(): readonly { readonly order: string; readonly key: string }[] {
  const lines = readFileSync(witness, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => {
    const [order = "", key = ""] = line.split(" ");
    return { order, key };
  });
}

function keysOf(order: string): ReadonlySet<string> {
  return new Set(calls().flatMap((call) => (call.order === order ? [call.key] : [])));
}

async function killAndRestart(): Promise<void> {
  await server.kill();
  server = await server.restart();
}

function count(text: string, piece: string): number {
  return text.split(piece).length - 1;
}

test("a conversation goes on over two kills, of a streaming answer and of a running tool", async () => {
  const talk = chat();
  talk.say("calculator: 6 * 7");
  await talk.shows("calculator says: 42");
  talk.say('call order_status {"order_id":"A-1001"}');
  await talk.shows("DHL");

  const words = Array.from({ length: 80 }, (_, index) => `word-${index}`).join(" ");
  talk.say(`say ${words}`);
  await talk.shows("word-5 ");
  expect(talk.printed.stdout).not.toContain("word-79");
  await killAndRestart();
  await talk.shows(`${words}\n`);
  expect(talk.printed.stderr).toContain("connecting again");
  expect(talk.printed.stderr).toContain("that part is void");

  writeFileSync(hold, "hold");
  talk.say('call order_status {"order_id":"A-1002"}');
  await vi.waitFor(() => expect(keysOf("A-1002").size).toBe(1), { timeout: 20_000 });
  await killAndRestart();
  writeFileSync(hold, "");
  await talk.shows("UPS");

  talk.say("calculator: 20 + 3");
  await talk.shows("calculator says: 23");
  talk.leave();
  expect(await talk.ended).toBe(0);

  // What had finished was not done again; what ran has one key, were it handed out once more.
  expect(calls().filter(({ order }) => order === "A-1001")).toHaveLength(1);
  expect(keysOf("A-1002").size).toBe(1);
  expect(count(talk.printed.stderr, '● calculator(expression: "6 * 7")')).toBe(1);
  expect(count(talk.printed.stderr, '● order_status(order_id: "A-1001")')).toBe(1);
  expect(count(talk.printed.stdout, "UPS")).toBe(1);
}, 180_000);

test("a message whose turn is killed under a tool is answered whole, and its finished calls stay single", async () => {
  writeFileSync(hold, "hold");
  const tail = Array.from({ length: 30 }, (_, index) => `tail-${index}`).join(" ");
  const script = [
    'call calculator {"expression":"2 ^ 10"}',
    'call order_status {"order_id":"A-1001"}',
    "say now the other one",
    'call order_status {"order_id":"A-1002"}',
    `say ${tail}`,
  ];
  const asked = chat("--message", script.join("\n"));
  await vi.waitFor(() => expect(keysOf("A-1002").size).toBe(1), { timeout: 30_000 });
  await killAndRestart();
  writeFileSync(hold, "");
  expect(await asked.ended).toBe(0);
  expect(asked.printed.stdout).toBe(`${tail}\n`);
  expect(calls().filter(({ order }) => order === "A-1001")).toHaveLength(1);
  expect(keysOf("A-1002").size).toBe(1);
  expect(count(asked.printed.stderr, "● calculator(")).toBe(1);
}, 120_000);
