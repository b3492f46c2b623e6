import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { createCadre } from "@cadre/sdk";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { type CuttingProxy, startCuttingProxy } from "../support/cutting-proxy.ts";
import { createFakeSessionService, fakeSessionId } from "../support/fake-session-service.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(bytesUntilCut: () => number) {
  const service = createFakeSessionService();
  const server = createServer(
    connectNodeAdapter({ routes: (router) => router.service(SessionService, service.handlers) }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const proxy: CuttingProxy = await startCuttingProxy((server.address() as AddressInfo).port, bytesUntilCut);
  cleanups.push(() => proxy.close());
  return { service, proxy, cadre: createCadre({ baseUrl: proxy.url }) };
}

test("over HTTP/1.1, 1,000 connections cut at random bytes lose and repeat nothing", async () => {
  const count = 2000;
  const cutsWanted = 1000;
  const seed = Date.now();
  // One stream of randomness for all cuts, from a seed that a failure prints.
  const lengths = fc.sample(fc.integer({ min: 1, max: 1400 }), { numRuns: 5000, seed });
  let connection = 0;
  const { service, proxy, cadre } = await start(() =>
    proxy.cuts < cutsWanted ? (lengths[connection++ % lengths.length] ?? 1) : Number.POSITIVE_INFINITY,
  );
  const seqs: bigint[] = [];
  const reconnect = { initialDelayMs: 0, maxDelayMs: 5 };
  service.append({ case: "textDelta", value: { text: "0" } });
  for await (const { seq, body } of cadre.sessions.events(fakeSessionId, { reconnect })) {
    seqs.push(seq);
    if (body.case === "textDelta" && body.value.text === "last") break;
    // Written while it is read: half of the cuts fall into live events.
    const next = seqs.length;
    if (next < count) service.append({ case: "textDelta", value: { text: `${next}` } });
    else if (proxy.cuts < cutsWanted) service.append({ case: "textDelta", value: { text: "more" } });
    else if (next >= count) service.append({ case: "textDelta", value: { text: "last" } });
  }
  expect(proxy.cuts, `seed ${seed}`).toBeGreaterThanOrEqual(cutsWanted);
  expect(seqs, `seed ${seed}`).toEqual(Array.from(seqs, (_, index) => BigInt(index + 1)));
}, 180_000);

test("a server that is not there is UNAVAILABLE, and names what is wrong", async () => {
  const cadre = createCadre({ baseUrl: "http://127.0.0.1:9", retry: { maxAttempts: 1 } });
  await expect(cadre.sessions.get(fakeSessionId)).rejects.toMatchObject({ reason: "UNAVAILABLE", code: 14 });
});

test("what is no Cadre is told apart from a failure of Cadre", async () => {
  const server = createServer((_, response) =>
    response.writeHead(404, { "content-type": "text/html" }).end("<h1>Hi</h1>"),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => new Promise((resolve) => server.close(resolve)));
  const cadre = createCadre({ baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  await expect(cadre.sessions.get(fakeSessionId)).rejects.toMatchObject({ reason: "UNIMPLEMENTED" });
});
