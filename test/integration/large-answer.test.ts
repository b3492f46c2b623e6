import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ErrorInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { newId } from "../../services/runtime/ids/id.ts";
import { type GatewayWorld, startGatewayWorld } from "../support/gateway-world.ts";

// An answer may fit into what services send each other, and not into what the
// public port does: as JSON a control character takes six bytes.

const sessionId = newId("ses");
const headers = { authorization: "Bearer owner.test.key" };
const mebibyte = 1024 * 1024;
const growing = "\u0001".repeat(0.9 * mebibyte);
let world: GatewayWorld;

beforeAll(async () => {
  world = await startGatewayWorld({
    sessions: {
      getSession: () => ({ session: { sessionId, title: growing } }),
      async *streamEvents() {
        yield { event: { seq: 1n, sessionId } };
        yield { event: { seq: 2n, sessionId, body: { case: "textDelta", value: { attempt: 1, text: growing } } } };
      },
    },
  });
});
afterAll(() => world.stop());

const transports = [
  ["Connect", createConnectTransport, false],
  ["gRPC", createGrpcTransport, true],
  ["gRPC-Web", createGrpcWebTransport, false],
] as const;

test.each(transports)("%s with JSON: the failure is typed, of a call and of a stream", async (_, create, http2) => {
  const options = { baseUrl: world.gateway.url, httpVersion: http2 ? "2" : "1.1", useBinaryFormat: false } as const;
  const client = createClient(SessionService, create(options as never));
  const refusal = ConnectError.from(await client.getSession({ sessionId }, { headers }).catch((thrown) => thrown));
  expect(refusal.code).toBe(Code.ResourceExhausted);
  expect(refusal.findDetails(ErrorInfoSchema)[0]?.reason).toBe("RESPONSE_TOO_LARGE");

  const seen: bigint[] = [];
  let ending: unknown;
  try {
    for await (const { event } of client.streamEvents({ sessionId }, { headers })) seen.push(event?.seq ?? 0n);
  } catch (thrown) {
    ending = thrown;
  }
  expect(seen).toEqual([1n]);
  expect(ConnectError.from(ending).findDetails(ErrorInfoSchema)[0]?.reason).toBe("RESPONSE_TOO_LARGE");
});

test("in binary the same answers are sent", async () => {
  for (const [, create, http2] of transports) {
    const options = { baseUrl: world.gateway.url, httpVersion: http2 ? "2" : "1.1" } as const;
    const client = createClient(SessionService, create(options as never));
    expect((await client.getSession({ sessionId }, { headers })).session?.title).toBe(growing);
  }
});

test("REST: the failure is typed, of a call and of a stream", async () => {
  const response = await fetch(`${world.gateway.url}/v1/sessions/${sessionId}`, { headers });
  expect(response.status).toBe(429);
  expect(await response.json()).toMatchObject({
    error: { reason: "RESPONSE_TOO_LARGE", status: "resource_exhausted" },
  });
  const events = await (await fetch(`${world.gateway.url}/v1/sessions/${sessionId}/events`, { headers })).text();
  expect(events).toContain("id: 1\n");
  expect(events).not.toContain("id: 2\n");
  expect(events).toMatch(/event: error\ndata: .*RESPONSE_TOO_LARGE/);
});
