import { type Cadre, createCadre, defineTool, type ToolWorker } from "@cadre/sdk";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { leastOfThree } from "../support/least-of-three.ts";

let server: RunningCadre;
let cadre: Cadre;
const workers: ToolWorker[] = [];

beforeAll(async () => {
  server = await startCadre();
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey });
}, 90_000);
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.close()));
});
afterAll(() => server?.dispose());

test("cancelling a turn reaches the handler's signal within a second, and nothing is printed afterwards", async () => {
  let started = Promise.withResolvers<void>();
  let aborted = Promise.withResolvers<number>();
  let ticks = 0;
  const tool = defineTool({
    name: "ticker",
    description: "Ticks until it is stopped.",
    input: z.object({}),
    handler: async (_, { signal, print }) => {
      started.resolve();
      signal.addEventListener("abort", () => aborted.resolve(performance.now()));
      while (!signal.aborted) {
        ticks += 1;
        await print(`${ticks}\n`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw signal.reason;
    },
  });
  workers.push(await cadre.tools.serve([tool]));
  const reachedMs = await leastOfThree(1_000, async () => {
    started = Promise.withResolvers();
    aborted = Promise.withResolvers();
    const session = await cadre.sessions.create();
    const turn = await session.send("call ticker {}");
    await started.promise;
    const cancelledAt = performance.now();
    await turn.cancel();
    const tookMs = (await aborted.promise) - cancelledAt;
    expect(await turn.outcome()).toMatchObject({ state: "cancelled", toolsMayStillRun: [] });
    const atEnd = ticks;
    await cadre.principal();
    expect(ticks).toBe(atEnd);
    return tookMs;
  });
  expect(reachedMs).toBeLessThan(1_000);
});

test("a handler that ignores its signal does not hold the turn, which says that it may still run", async () => {
  const started = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const tool = defineTool({
    name: "stubborn",
    description: "Does not stop.",
    input: z.object({}),
    handler: async () => {
      started.resolve();
      await release.promise;
      return "late";
    },
  });
  workers.push(await cadre.tools.serve([tool], { drainTimeoutMs: 1_000 }));
  const session = await cadre.sessions.create();
  const turn = await session.send("call stubborn {}");
  await started.promise;
  await turn.cancel();
  expect(await turn.outcome()).toMatchObject({ state: "cancelled", toolsMayStillRun: ["stubborn"] });
  release.resolve();
});

test("two workers share the calls of a tool", async () => {
  const served: string[] = [];
  const both = Promise.withResolvers<void>();
  const serve = async (name: string) => {
    const tool = defineTool({
      name: "shared",
      description: "Waits until both workers have a call.",
      input: z.object({}),
      handler: async () => {
        served.push(name);
        if (new Set(served).size === 2) both.resolve();
        await both.promise;
        return name;
      },
    });
    workers.push(await cadre.tools.serve([tool], { concurrency: 1, name }));
  };
  await serve("one");
  await serve("two");
  const tool = await cadre.tools.find("shared");
  expect(tool?.workers).toBe(2);
  const calls = [1, 2].map(() => cadre.tools.call(tool?.toolId ?? "", {}).result());
  expect(new Set(await Promise.all(calls))).toEqual(new Set(["one", "two"]));
});

test("a limit of workers that an admin sets holds from then on", async () => {
  const tool = defineTool({ name: "limited", description: "A tool.", input: z.object({}), handler: () => null });
  workers.push(await cadre.tools.serve([tool]));
  await cadre.limits.set("workers", 1n);
  await expect(cadre.tools.serve([tool], { onError: () => undefined })).rejects.toMatchObject({
    reason: "LIMIT_EXCEEDED",
    quotas: [{ limit: "workers", value: 1n }],
  });
  await cadre.limits.set("workers", 2n);
  workers.push(await cadre.tools.serve([tool]));
});

test("a key serves only the tools that it names", async () => {
  const { secret } = await cadre.keys.issue({
    name: "worker",
    role: "developer",
    scopes: ["tools.serve", "tools.write"],
    tools: ["allowed"],
  });
  const limited = createCadre({ baseUrl: server.url, apiKey: secret });
  const tool = (name: string) => defineTool({ name, description: "A tool.", input: z.object({}), handler: () => null });
  workers.push(await limited.tools.serve([tool("allowed")]));
  await expect(limited.tools.serve([tool("forbidden")], { onError: () => undefined })).rejects.toMatchObject({
    reason: "TOOL_NOT_GRANTED",
  });
});

test("a worker whose key is revoked ends, and says why", async () => {
  const { key, secret } = await cadre.keys.issue({
    name: "worker",
    role: "developer",
    scopes: ["tools.serve", "tools.write"],
    tools: ["revoked"],
  });
  const limited = createCadre({ baseUrl: server.url, apiKey: secret });
  const tool = defineTool({ name: "revoked", description: "A tool.", input: z.object({}), handler: () => null });
  const worker = await limited.tools.serve([tool], { onError: () => undefined });
  workers.push(worker);
  await cadre.keys.revoke(key.keyId);
  // Which of the two depends on whether the stream or the next connection is refused first.
  await expect(worker.closed).rejects.toMatchObject({
    reason: expect.stringMatching(/^(PRINCIPAL_REVOKED|UNAUTHENTICATED)$/),
  });
}, 40_000);
