import { createCadre, jsonOf, type SessionEvent } from "@cadre/sdk";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { startCuttingProxy } from "../support/cutting-proxy.ts";

let server: RunningCadre;
beforeAll(async () => {
  server = await startCadre();
}, 90_000);
afterAll(() => server?.dispose());

test("what arrives over 1,000 connections cut at random bytes is the stored log, event for event", async () => {
  const cutsWanted = 1_000;
  const seed = Date.now();
  const lengths = fc.sample(fc.integer({ min: 1, max: 1_000 }), { numRuns: 5_000, seed });
  let connection = 0;
  const proxy = await startCuttingProxy(Number(new URL(server.url).port), () =>
    proxy.cuts < cutsWanted ? (lengths[connection++ % lengths.length] ?? 1) : Number.POSITIVE_INFINITY,
  );
  const direct = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
  const cut = createCadre({ baseUrl: proxy.url, apiKey: server.adminKey });
  await direct.limits.set("requests_per_second", 100_000);
  await direct.limits.set("request_burst", 200_000);
  const session = await direct.sessions.create();
  try {
    const received: SessionEvent[] = [];
    const reader = (async () => {
      const events = cut.sessions.events(session.sessionId, { reconnect: { initialDelayMs: 0, maxDelayMs: 20 } });
      for await (const event of events) {
        received.push(event);
        if (event.body.case === "turnStarted" && event.body.value.text === "say last") break;
      }
    })();
    // Turns go on until there were enough cuts, so that these fall into live streams.
    for (let turn = 0; proxy.cuts < cutsWanted; turn += 1) {
      await (await session.send(`say ${"word ".repeat(20)}\nsay turn ${turn}`)).outcome();
    }
    await (await session.send("say last")).outcome();
    await reader;
    const stored: SessionEvent[] = [];
    for await (const event of session.events()) {
      stored.push(event);
      if (stored.length === received.length) break;
    }
    expect(proxy.cuts, `seed ${seed}`).toBeGreaterThanOrEqual(cutsWanted);
    expect(received.map(jsonOf), `seed ${seed}`).toEqual(stored.map(jsonOf));
    expect(stored.map(({ seq }) => seq)).toEqual(stored.map((_, index) => BigInt(index + 1)));
  } finally {
    await proxy.close();
  }
}, 300_000);
