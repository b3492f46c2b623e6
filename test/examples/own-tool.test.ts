import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { type Cadre, createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";

const root = join(import.meta.dirname, "../..");
let server: RunningCadre;
let cadre: Cadre;
let app: ChildProcess;

beforeAll(async () => {
  server = await startCadre();
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  app = spawn(process.execPath, [join(root, "examples/02-own-tool/main.ts")], {
    env: { ...process.env, CADRE_URL: server.url, CADRE_API_KEY: server.adminKey },
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    app.stdout?.once("data", () => resolve());
    app.once("exit", (code) => reject(new Error(`the example ended with ${code}`)));
  });
}, 90_000);
afterAll(async () => {
  app?.kill("SIGKILL");
  await server?.dispose();
});

test("an agent calls the tool that example 02 serves, and answers with what it gave", async () => {
  const session = await cadre.sessions.create({ agent: "assistant" });
  const turn = await session.send('call order_status {"order_id":"A-1001"}');
  const types: string[] = [];
  let printed = "";
  for await (const { body } of turn.events()) {
    types.push(body.case ?? "");
    if (body.case === "toolDelta") printed += body.value.text;
    if (body.case === "turnEnded") expect(body.value.answer).toContain("DHL");
  }
  expect(printed).toBe("looking for A-1001\n");
  expect(types.filter((type) => type.startsWith("tool"))).toEqual(["toolStarted", "toolDelta", "toolEnded"]);
});

test("what the tool says went wrong reaches the caller", async () => {
  const tool = await cadre.tools.find("order_status");
  const call = cadre.tools.call(tool?.toolId ?? "", { order_id: "B-1" });
  await expect(call.result()).rejects.toMatchObject({ reason: "TOOL_FAILED", message: "there is no order B-1" });
});

test("the app serves on after the server was killed, and the turn that ran ends", async () => {
  const session = await cadre.sessions.create({ agent: "assistant" });
  const turn = await session.send('wait 2s\ncall order_status {"order_id":"A-1002"}');
  const outcome = turn.outcome();
  await server.kill();
  server = await server.restart();
  expect(await outcome).toMatchObject({ state: "succeeded", answer: expect.stringContaining("UPS") });
}, 90_000);

test("SIGTERM lets it leave in order", async () => {
  const ended = new Promise((resolve) => app.once("exit", resolve));
  app.kill("SIGTERM");
  expect(await ended).toBe(0);
  const tool = await cadre.tools.find("order_status");
  expect(tool?.workers).toBe(0);
});
