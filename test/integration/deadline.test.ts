import { setTimeout as delay } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { SendTurnRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { afterAll, beforeAll, expect, test } from "vitest";
import { newId } from "../../services/runtime/ids/id.ts";
import { requestContext } from "../../services/runtime/rpc/request-context.ts";
import { call, request1, sessionMethod, unaryProtocols } from "../attack/wire-client.ts";
import { type GatewayWorld, startGatewayWorld } from "../support/gateway-world.ts";

// A deadline is kept by the server, from the public port to the handler behind
// the gateway: the caller here has no timer of its own, and handlers are slower
// than every deadline. Each call is answered in time, and nothing is done after.

const calls = 500;
const concurrency = 10;
const answeredWithinMs = 100;
const deadlinesMs = { least: 50, most: 500 };

const sessionId = newId("ses");
const authorization = "Bearer owner.test.key";
let world: GatewayWorld;
let port: number;
/** When each call's handler last did something, by the text that names the call. */
const effects = new Map<string, number>();

beforeAll(async () => {
  world = await startGatewayWorld({
    sessions: {
      async sendTurn({ text }, context) {
        if (text.startsWith("quick")) return { turn: { sessionId, text } };
        const { signal } = requestContext(context.values);
        // One half heeds the signal, and works until then; the other half never answers.
        if (text.startsWith("deaf")) return new Promise<never>(() => {});
        while (!signal.aborted) {
          effects.set(text, performance.now());
          await delay(5);
        }
        throw signal.reason;
      },
    },
  });
  port = Number(new URL(world.gateway.url).port);
});
afterAll(() => world.stop());

const ways = [...unaryProtocols, "rest"] as const;

/** Sends a turn; says with which code it was answered (of gRPC) and after how long. */
async function send(way: (typeof ways)[number], text: string, timeoutMs: number) {
  const startMs = performance.now();
  const code = way === "rest" ? await sendRest(text, timeoutMs) : await sendRpc(way, text, timeoutMs);
  return { code, tookMs: performance.now() - startMs, startMs };
}

async function sendRpc(way: (typeof unaryProtocols)[number], text: string, timeoutMs: number): Promise<number> {
  const timeout = way === "connect" ? { "connect-timeout-ms": `${timeoutMs}` } : { "grpc-timeout": `${timeoutMs}m` };
  const message = toBinary(SendTurnRequestSchema, create(SendTurnRequestSchema, { sessionId, text }));
  const { code } = await call(port, way, sessionMethod("SendTurn"), message, {
    headers: { authorization, ...timeout },
  });
  return code;
}

async function sendRest(text: string, timeoutMs: number): Promise<number> {
  const { status, bytes } = await request1(
    port,
    {
      method: "POST",
      path: `/v1/sessions/${sessionId}/turns`,
      headers: { authorization, "content-type": "application/json", "connect-timeout-ms": `${timeoutMs}` },
    },
    JSON.stringify({ text }),
  );
  if (status === 200) return 0;
  return JSON.parse(bytes.toString()).error.reason === "DEADLINE_EXCEEDED" ? 4 : -1;
}

/** Runs so many calls, a few at a time; returns what `run` gave for each. */
async function spread<T>(count: number, run: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let begun = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (begun < count) results.push(await run(begun++));
    }),
  );
  return results;
}

test("500 calls over all protocols are answered at their deadlines, and nothing is done after them", async () => {
  const way = (index: number) => ways[index % ways.length] ?? "rest";
  // The control: how long a call takes here by itself, on the machine as it is.
  const control = await spread(100, (index) => send(way(index), `quick ${index}`, 60_000));
  expect(new Set(control.map(({ code }) => code))).toEqual(new Set([0]));
  const controlMs = control.map(({ tookMs }) => tookMs).sort((a, b) => a - b);
  const medianMs = controlMs[control.length >> 1] ?? 0;
  const slackMs = controlMs.at(-1) ?? 0;

  const span = deadlinesMs.most - deadlinesMs.least;
  const results = await spread(calls, async (index) => {
    const timeoutMs = deadlinesMs.least + Math.round((index * span) / (calls - 1));
    const text = `${index % 8 < 4 ? "heeding" : "deaf"} ${index}`;
    return { ...(await send(way(index), text, timeoutMs)), text, timeoutMs };
  });

  expect(results).toHaveLength(calls);
  expect(results.filter(({ code }) => code !== 4)).toEqual([]);
  const late = results.map(({ tookMs, timeoutMs }) => tookMs - timeoutMs).sort((a, b) => a - b);
  // A call to a peer gets 50 ms less, so that its answer still finds the caller; timers round down.
  expect(late[0]).toBeGreaterThan(-55);
  // Twice what the control took is this machine's doing: of most calls its median, of a single one its slowest.
  expect(late[calls >> 1]).toBeLessThan(answeredWithinMs + 2 * medianMs);
  expect(late.at(-1)).toBeLessThan(answeredWithinMs + 2 * slackMs);

  await delay(200);
  const heeding = results.filter(({ text }) => text.startsWith("heeding"));
  expect(heeding.length).toBeGreaterThan(calls * 0.45);
  const after = heeding.filter(
    ({ text, startMs, timeoutMs }) => (effects.get(text) ?? 0) > startMs + timeoutMs + answeredWithinMs + 2 * slackMs,
  );
  expect(after).toEqual([]);
  // They did work before: the witness sees.
  expect(heeding.filter(({ text }) => effects.has(text)).length).toBeGreaterThan(heeding.length * 0.9);
  const seen = new Map(effects);
  await delay(200);
  expect(effects).toEqual(seen);
}, 120_000);
