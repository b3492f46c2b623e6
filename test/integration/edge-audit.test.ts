import { AuditDecision, type AuditEvent } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { connectFrames, frame, frameType } from "../attack/h2-frames.ts";
import { call, sessionMethod } from "../attack/wire-client.ts";
import { type GatewayWorld, startGatewayWorld } from "../support/gateway-world.ts";

// What the public port refuses by itself reaches the audit log: one row a
// subject, limit and minute, however much is refused.

const sendTurn = sessionMethod("SendTurn");
const sessionId = newId("ses");

let world: GatewayWorld;
let port: number;
let before = 0;

beforeAll(async () => {
  world = await startGatewayWorld({
    sessions: {
      sendTurn({ text }) {
        if (text !== "full") return { turn: { sessionId, text } };
        throw new AppError("LIMIT_EXCEEDED", "the org has 20 turns already", {
          quotas: [{ subject: "org", limit: "concurrent_turns", value: 20n, description: "turns" }],
        });
      },
    },
  });
  port = Number(new URL(world.gateway.url).port);
});
afterAll(() => world.stop());
beforeEach(() => {
  before = world.credentials.auditEvents.length;
});

/** What was written since the test began, once all that was counted is written, too. */
async function rowsOf(type: string): Promise<AuditEvent[]> {
  await world.platform.audit("gateway").denials.flush();
  return world.credentials.auditEvents.slice(before).filter((event) => event.type === type);
}

const total = (rows: readonly AuditEvent[]): number => rows.reduce((sum, { count }) => sum + count, 0);

/** Sends a frame again and again; resolves when the connection is closed on us. */
async function floodWith(sent: Buffer): Promise<void> {
  const connection = await connectFrames(port);
  for (let index = 0; index < 100; index++) connection.send(sent);
  await connection.whenClosed();
}

test("connections that abuse HTTP/2 are one row a source and kind, with how many they were", async () => {
  const ping = frame(frameType.ping, 0, 0, Buffer.alloc(8));
  for (let round = 0; round < 3; round++) await floodWith(ping);
  await floodWith(frame(frameType.settings, 0, 0));
  const rows = await rowsOf("conn.abuse");
  const of = (kind: string) => rows.filter(({ reason }) => reason === kind);
  expect([total(of("pings")), total(of("settings"))]).toEqual([3, 1]);
  expect(of("pings").length).toBeLessThanOrEqual(2);
  for (const row of rows) {
    expect(row).toMatchObject({
      orgId: "",
      actor: "",
      decision: AuditDecision.DENIED,
      source: "127.0.0.1",
      resource: "connection",
    });
  }
});

test("messages that are too large are one row, whatever was called, with how many they were", async () => {
  const large = Buffer.alloc(5 * 1024 * 1024);
  for (const protocol of ["connect", "grpc", "grpc-web"] as const) {
    for (let round = 0; round < 5; round++) {
      expect((await call(port, protocol, sendTurn, large)).reason).toBe("MESSAGE_TOO_LARGE");
    }
  }
  const response = await fetch(`${world.gateway.url}/v1/sessions/${sessionId}/turns`, {
    method: "POST",
    headers: { authorization: "Bearer owner.test.key", "content-type": "application/json" },
    body: large,
  });
  expect(response.status).toBe(429);
  const rows = await rowsOf("limit.exceeded");
  expect(total(rows)).toBe(16);
  expect(rows.length).toBeLessThanOrEqual(2);
  expect(rows[0]).toMatchObject({
    reason: "MESSAGE_TOO_LARGE",
    resource: "limit/message_bytes",
    source: "127.0.0.1",
    action: "cadre.orchestrator.v1.SessionService/SendTurn",
  });
});

test("a limit of the org is one row for each credential that ran into it", async () => {
  const send = async (key: string) => {
    const response = await fetch(`${world.gateway.url}/v1/sessions/${sessionId}/turns`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}.test.key`, "content-type": "application/json" },
      body: JSON.stringify({ text: "full" }),
    });
    return ((await response.json()) as { error?: { reason: string } }).error?.reason;
  };
  for (let round = 0; round < 20; round++) {
    expect([await send("owner"), await send("member")]).toEqual(["LIMIT_EXCEEDED", "LIMIT_EXCEEDED"]);
  }
  const rows = await rowsOf("limit.exceeded");
  expect(new Set(rows.map(({ actor }) => actor)).size).toBe(2);
  expect(rows.length).toBeLessThanOrEqual(4);
  expect(total(rows)).toBe(40);
  for (const row of rows) {
    expect(row).toMatchObject({
      reason: "LIMIT_EXCEEDED",
      resource: "limit/concurrent_turns",
      orgId: world.credentials.orgId,
    });
  }
});
