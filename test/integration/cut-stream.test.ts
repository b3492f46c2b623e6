import { setTimeout as delay } from "node:timers/promises";
import { toBinary } from "@bufbuild/protobuf";
import { type SessionEvent, SessionEventSchema } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { type Cadre, createCadre } from "@cadre/sdk";
import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { type CuttingProxy, startCuttingProxy } from "../support/cutting-proxy.ts";

// Streams of events are cut at random bytes, in the middle of frames, while a
// turn writes and afterwards. What was delivered is compared with the stored
// log: nothing lost, nothing twice, in order.

const cutsPerProtocol = 260;
const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

let server: RunningCadre;
let direct: Cadre;
let proxy: CuttingProxy;
let uncut = false;

beforeAll(async () => {
  server = await startCadre({ settings: { CADRE_SCRIPTED_WORD_MS: "12" } });
  direct = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  await direct.limits.set("requests_per_second", 10_000n);
  await direct.limits.set("request_burst", 10_000n);
  const lengths = fc.sample(fc.integer({ min: 1, max: 6_000 }), { numRuns: 10_000, seed });
  let connection = 0;
  proxy = await startCuttingProxy(Number(new URL(server.url).port), () =>
    uncut ? Number.POSITIVE_INFINITY : (lengths[connection++ % lengths.length] ?? 1),
  );
});
afterAll(async () => {
  await proxy.close();
  await server.dispose();
});

const longAnswer = `say ${Array.from({ length: 250 }, (_, index) => `word-${index}`).join(" ")}`;

async function storedLog(sessionId: string, lastSeq: bigint): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  for await (const event of direct.sessions.events(sessionId)) {
    events.push(event);
    if (event.seq === lastSeq) break;
  }
  return events;
}

const digest = (event: SessionEvent): string => Buffer.from(toBinary(SessionEventSchema, event)).toString("base64");

/** By protocol; none is the SDK's own: Connect over `fetch`, so over HTTP/1.1. */
const transports: Readonly<Record<string, ((baseUrl: string) => Transport) | undefined>> = {
  "Connect over HTTP/1.1": undefined,
  "Connect over HTTP/2": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" }),
  gRPC: (baseUrl) => createGrpcTransport({ baseUrl }),
  "gRPC-Web": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
};

test.each(Object.keys(transports))(
  "%s: cut again and again, the SDK delivers the stored log",
  async (name) => {
    const session = await direct.sessions.create();
    await session.send(longAnswer);
    const cutsBefore = proxy.cuts;
    let reads = 0;
    let lastSeq = 0n;
    // The first reading follows the turn as it is written, the others the stored log.
    while (proxy.cuts - cutsBefore < cutsPerProtocol) {
      // A connection of its own for each reading, as a browser's tab would have.
      const transport = transports[name]?.(proxy.url);
      const cadre = createCadre({ baseUrl: proxy.url, apiKey: server.adminKey, ...(transport && { transport }) });
      const delivered: SessionEvent[] = [];
      const reconnect = { initialDelayMs: 0, maxDelayMs: 20 };
      for await (const event of cadre.sessions.events(session.sessionId, { reconnect })) {
        delivered.push(event);
        if (event.body.case === "turnEnded") break;
      }
      lastSeq = delivered.at(-1)?.seq ?? 0n;
      const stored = await storedLog(session.sessionId, lastSeq);
      expect(delivered.map(digest), `seed ${seed}, reading ${reads}`).toEqual(stored.map(digest));
      reads += 1;
    }
    expect(Number(lastSeq)).toBeGreaterThan(50);
  },
  120_000,
);

test("SSE: cut again and again, Last-Event-ID delivers the stored log", async () => {
  const session = await direct.sessions.create();
  await session.send(longAnswer);
  const cutsBefore = proxy.cuts;
  while (proxy.cuts - cutsBefore < cutsPerProtocol) {
    const delivered: { id: string; data: string }[] = [];
    while (!delivered.at(-1)?.data.includes('"turn_ended"')) {
      for await (const event of readSse(session.sessionId, delivered.at(-1)?.id)) delivered.push(event);
    }
    expect(
      delivered.map(({ id }) => id),
      `seed ${seed}`,
    ).toEqual(delivered.map((_, index) => `${index + 1}`));
    uncut = true;
    const whole: { id: string; data: string }[] = [];
    for await (const event of readSse(session.sessionId, undefined)) {
      whole.push(event);
      if (event.data.includes('"turn_ended"')) break;
    }
    uncut = false;
    expect(delivered, `seed ${seed}`).toEqual(whole);
  }
}, 120_000);

/** One connection's events, until it breaks. An event counts when its blank line has come. */
async function* readSse(
  sessionId: string,
  lastEventId: string | undefined,
): AsyncGenerator<{ id: string; data: string }> {
  const abort = new AbortController();
  try {
    const response = await fetch(`${proxy.url}/v1/sessions/${sessionId}/events`, {
      signal: abort.signal,
      headers: {
        authorization: `Bearer ${server.adminKey}`,
        ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
      },
    });
    let buffer = "";
    for await (const text of (response.body ?? new ReadableStream()).pipeThrough(new TextDecoderStream())) {
      buffer += text;
      for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
        const block = buffer.slice(0, end);
        buffer = buffer.slice(end + 2);
        const id = /^id: (.*)$/m.exec(block)?.[1];
        const data = /^data: (.*)$/m.exec(block)?.[1];
        if (id === undefined || data === undefined) continue;
        yield { id, data };
        if (data.includes('"turn_ended"')) return;
      }
    }
  } catch (thrown) {
    // A cut is what this test is about; fetch says so as a TypeError.
    if (!(thrown instanceof TypeError)) throw thrown;
    await delay(1);
  } finally {
    abort.abort();
  }
}
