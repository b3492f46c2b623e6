import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newId } from "../../services/runtime/ids/id.ts";
import { type GatewayWorld, startGatewayWorld } from "../support/gateway-world.ts";

// One org may hold 16 MiB of the requests that this process serves, so that it
// cannot take all 64 MiB from the others.

const sessionId = newId("ses");
/** Four of these are 15.6 MiB. */
const large = { sessionId, text: "large", answerSchema: { a: "x".repeat(3.9 * 1024 * 1024) } };

let world: GatewayWorld;
/** Calls that are being served. */
let waiting: (() => void)[] = [];

beforeAll(async () => {
  world = await startGatewayWorld({
    sessions: {
      async sendTurn({ text }) {
        if (text === "large") await new Promise<void>((resolve) => waiting.push(resolve));
        return { turn: { sessionId, text } };
      },
    },
  });
});
afterAll(() => world.stop());

const protocols = {
  Connect: (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect with JSON": (baseUrl: string) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  gRPC: (baseUrl: string) => createGrpcTransport({ baseUrl }),
  "gRPC-Web": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
};
type Send = (key: string, text: "large" | "small") => Promise<unknown>;

const ways: [string, () => Send][] = [
  ...Object.entries(protocols).map(([name, transport]): [string, () => Send] => [
    name,
    () => {
      const client = createClient(SessionService, transport(world.gateway.url));
      return (key, text) =>
        client.sendTurn(text === "large" ? large : { sessionId, text }, {
          headers: { authorization: `Bearer ${key}.test.key` },
        });
    },
  ]),
  ["REST", () => sendByRest],
];

async function sendByRest(key: string, text: "large" | "small"): Promise<unknown> {
  const response = await fetch(`${world.gateway.url}/v1/sessions/${sessionId}/turns`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}.test.key`, "content-type": "application/json" },
    body: JSON.stringify(text === "large" ? { text, answer_schema: large.answerSchema } : { text }),
  });
  const body = (await response.json()) as { error?: { reason: string; details: { "@type": string }[] } };
  if (body.error === undefined) return body;
  expect(response.status).toBe(429);
  expect(response.headers.get("retry-after")).toBe("1");
  expect(body.error.reason).toBe("OVERLOADED");
  expect(JSON.stringify(body.error.details)).toContain('"subject":"org"');
  throw new ConnectError("refused over REST", Code.ResourceExhausted);
}

describe.each(ways)("over %s", (name, connect) => {
  test("the fifth large call of an org is refused, another org's is served, and all is given back", async () => {
    waiting = [];
    const send = connect();
    const held = Array.from({ length: 4 }, () => send("owner", "large"));
    await served(4);

    const refusal = ConnectError.from(await send("member", "large").catch((thrown: unknown) => thrown));
    expect(refusal.code).toBe(Code.ResourceExhausted);
    if (name !== "REST") {
      expect(refusal.findDetails(ErrorInfoSchema)[0]?.reason).toBe("OVERLOADED");
      expect(refusal.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBe(1n);
      expect(refusal.findDetails(QuotaFailureSchema)[0]?.violations[0]?.subject).toBe("org");
    }
    expect(waiting).toHaveLength(4);
    const other = send("other", "large");
    await served(5);
    // Small calls still have room.
    await send("member", "small");

    for (const resolve of waiting) resolve();
    await Promise.all([...held, other]);
    waiting = [];
    const again = send("owner", "large");
    await served(1);
    waiting[0]?.();
    await again;
  });
});

test("a caller that goes away gives back what it held", async () => {
  waiting = [];
  for (let round = 1; round <= 3; round++) {
    const caller = new AbortController();
    const calls = Array.from({ length: 4 }, () => post(sessionId, caller.signal));
    await served(4 * round);
    expect(await hasRoom()).toBe(false);
    caller.abort();
    await Promise.allSettled(calls);
    await expect.poll(hasRoom).toBe(true);
  }
  for (const resolve of waiting) resolve();
});

/** Waits until so many large calls wait in the handler. */
async function served(calls: number): Promise<void> {
  await expect.poll(() => waiting.length).toBe(calls);
}

/** Whether there is room for a large call: with room it is refused for its session's id, which is looked at later. */
async function hasRoom(): Promise<boolean> {
  const response = await post("none");
  await response.arrayBuffer();
  return response.status === 400;
}

function post(session: string, signal?: AbortSignal): Promise<Response> {
  return fetch(`${world.gateway.url}/v1/sessions/${session}/turns`, {
    method: "POST",
    headers: { authorization: "Bearer owner.test.key", "content-type": "application/json" },
    body: JSON.stringify({ text: "large", answer_schema: large.answerSchema }),
    ...(signal === undefined ? {} : { signal }),
  });
}
