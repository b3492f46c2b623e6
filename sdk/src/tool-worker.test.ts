import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { afterEach, expect, test } from "vitest";
import { z } from "zod";
import { createFakeToolWorkerService, failureOf } from "../../test/support/fake-tool-worker-service.ts";
import {
  createCadre,
  type DefinedTool,
  defineTool,
  type ServeOptions,
  type ToolCallContext,
  ToolFailure,
  type ToolWorker,
} from "./index.ts";

const workers: ToolWorker[] = [];
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.close()));
});

async function serve(
  tools: readonly DefinedTool[],
  options: ServeOptions = {},
  service = createFakeToolWorkerService(),
) {
  const transport = createRouterTransport((router) => router.service(ToolWorkerService, service.handlers));
  const cadre = createCadre({ baseUrl: "http://fake", transport, retry: { initialDelayMs: 0 } });
  const errors: unknown[] = [];
  const worker = await cadre.tools.serve(tools, {
    drainTimeoutMs: 50,
    maxReconnectDelayMs: 100,
    onError: (error) => errors.push(error),
    ...options,
  });
  workers.push(worker);
  return { service, worker, errors };
}

const double = defineTool({
  name: "double",
  description: "Doubles a number.",
  input: z.object({ n: z.number() }),
  output: z.object({ doubled: z.number() }),
  sideEffects: "none",
  handler: ({ n }) => ({ doubled: n * 2 }),
});

/** A tool whose calls end when the test says so. */
function createHeldTool() {
  const calls: { readonly context: ToolCallContext; end(): void; fail(error: Error): void }[] = [];
  const tool = defineTool({
    name: "held",
    description: "Waits.",
    inputSchema: { type: "object" },
    handler: (_, context) =>
      new Promise((resolve, reject) => {
        calls.push({ context, end: () => resolve("done"), fail: reject });
        context.signal.addEventListener("abort", () => reject(context.signal.reason));
      }),
  });
  return { tool, calls };
}

test("a call's result is reported, with the definition registered from the validator", async () => {
  const { service, worker } = await serve([double], { name: "laptop", concurrency: 3 });
  const callId = service.call(1, "double", { n: 21 });
  await expect.poll(() => service.results.length).toBe(1);
  expect(service.results[0]).toMatchObject({
    workerId: worker.workerId,
    callId,
    outcome: { case: "result", value: { kind: { case: "structValue", value: { fields: {} } } } },
  });
  const [connection] = service.connections;
  expect(connection).toMatchObject({ name: "laptop", concurrency: 3, workerId: "" });
  expect(connection?.tools[0]?.inputSchema).toMatchObject({ type: "object", required: ["n"] });
});

test.each([
  ["a failure meant for the model", new ToolFailure("no such order"), "no such order", 0],
  ["an error that may hold secrets", new Error("connect postgres://user:secret@db"), "the tool failed", 1],
])("%s is told as far as it should", async (_, thrown, message, told) => {
  const tool = defineTool({
    name: "bad",
    description: "Fails.",
    inputSchema: { type: "object" },
    handler: () => Promise.reject(thrown),
  });
  const { service, errors } = await serve([tool]);
  service.call(1, "bad");
  await expect.poll(() => service.results[0]?.outcome.value).toMatchObject({ reason: Reason.TOOL_FAILED, message });
  expect(errors).toHaveLength(told);
});

test.each([
  ["arguments", "double", { n: "two" }, Reason.TOOL_ARGUMENTS_INVALID],
  ["result", "liar", {}, Reason.TOOL_RESULT_INVALID],
  ["unknown tool", "stranger", {}, Reason.TOOL_NOT_FOUND],
])("wrong %s give a reason", async (_, tool, args, reason) => {
  const liar = defineTool({
    name: "liar",
    description: "Gives what it does not declare.",
    input: z.object({}),
    output: z.object({ n: z.number() }),
    handler: () => JSON.parse('{"n":"one"}'),
  });
  const { service } = await serve([double, liar]);
  service.call(1, tool, args);
  await expect.poll(() => service.results[0]?.outcome.value).toMatchObject({ reason });
});

test("printed text comes in numbered batches, all of it before the result", async () => {
  const tool = defineTool({
    name: "loud",
    description: "Prints.",
    inputSchema: { type: "object" },
    handler: async (_, { print }) => {
      for (let line = 0; line < 2000; line += 1) await print(`line ${line} 😀\n`);
      return "done";
    },
  });
  const { service } = await serve([tool]);
  service.failReports(new ConnectError("reset", Code.Unavailable));
  service.call(1, "loud");
  await expect.poll(() => service.results.length).toBe(1);
  const text = Array.from({ length: 2000 }, (_, line) => `line ${line} 😀\n`).join("");
  expect(service.outputs.map(({ output }) => output).join("")).toBe(text);
  expect(service.outputs.map(({ seq }) => seq)).toEqual(service.outputs.map((_, index) => BigInt(index + 1)));
  expect(service.outputs.length).toBeLessThan(20);
});

test("a call that is handed out twice runs once; one with the same key shares its outcome", async () => {
  const { tool, calls } = createHeldTool();
  const { service } = await serve([tool]);
  service.call(1, "held");
  service.call(1, "held");
  service.call(2, "held", {}, "key-1");
  await expect.poll(() => service.heartbeat.length).toBe(2);
  expect(calls).toHaveLength(1);
  calls[0]?.end();
  await expect
    .poll(() => service.results.map(({ callId }) => Number(callId.slice(5))).sort((a, b) => a - b))
    .toEqual([1, 2]);
  expect(calls).toHaveLength(1);
});

test("no more calls run at once than stated", async () => {
  const { tool, calls } = createHeldTool();
  const { service } = await serve([tool], { concurrency: 2 });
  for (const number of [1, 2, 3, 4]) service.call(number, "held");
  await expect.poll(() => service.heartbeat.length).toBe(4);
  expect(calls).toHaveLength(2);
  calls[0]?.end();
  await expect.poll(() => calls.length).toBe(3);
  for (const call of calls) call.end();
  await expect.poll(() => calls.length).toBe(4);
  calls[3]?.end();
  await expect.poll(() => service.results.length).toBe(4);
});

test.each(["stream", "heartbeat"] as const)(
  "a cancellation by %s aborts the handler, and its end is reported",
  async (way) => {
    const { tool, calls } = createHeldTool();
    const { service } = await serve([tool]);
    const callId = service.call(1, "held");
    await expect.poll(() => calls.length).toBe(1);
    if (way === "stream") service.cancel(callId);
    else service.cancelByHeartbeat(callId);
    await expect.poll(() => service.results[0]?.outcome.case).toBe("cancelled");
    expect(calls[0]?.context.signal.aborted).toBe(true);
  },
);

test("a handler that takes too long is aborted, and fails with its deadline", async () => {
  const { tool } = createHeldTool();
  const { service } = await serve([{ ...tool, timeoutMs: 30 }]);
  service.call(1, "held");
  await expect.poll(() => service.results[0]?.outcome.value).toMatchObject({ reason: Reason.DEADLINE_EXCEEDED });
});

test("a broken connection ends no call: the worker is back under its id", async () => {
  const { tool, calls } = createHeldTool();
  const { service, worker } = await serve([tool]);
  const { workerId } = worker;
  service.call(1, "held");
  await expect.poll(() => calls.length).toBe(1);
  service.breakConnection();
  await expect.poll(() => service.connections.length).toBe(2);
  expect(service.connections[1]).toMatchObject({ workerId, callIds: [calls[0]?.context.callId] });
  calls[0]?.end();
  await expect.poll(() => service.results.length).toBe(1);
});

test("a result is reported until it is taken", async () => {
  const { service } = await serve([double]);
  service.failReports(...Array.from({ length: 9 }, () => new ConnectError("down", Code.Unavailable)));
  service.call(1, "double", { n: 1 });
  await expect.poll(() => service.results.length).toBe(1);
});

test("a result that the server refuses becomes a failure of the tool", async () => {
  const { service } = await serve([double]);
  service.failReports(failureOf("MESSAGE_TOO_LARGE", Code.ResourceExhausted));
  service.call(1, "double", { n: 1 });
  await expect.poll(() => service.results[0]?.outcome.value).toMatchObject({ reason: Reason.TOOL_RESULT_INVALID });
});

test("a registration that ended aborts what ran, reports none of it, and is made anew", async () => {
  const { tool, calls } = createHeldTool();
  const { service, worker } = await serve([double, tool]);
  const before = worker.workerId;
  service.call(1, "held");
  await expect.poll(() => calls.length).toBe(1);
  service.forget();
  await expect.poll(() => worker.workerId).not.toBe(before);
  await expect.poll(() => worker.workerId).toMatch(/^wrk_/);
  expect(calls[0]?.context.signal.aborted).toBe(true);
  const callId = service.call(2, "double", { n: 4 });
  await expect.poll(() => service.results.map((result) => result.callId)).toEqual([callId]);
});

test("a call that has ended elsewhere is stopped, without a word", async () => {
  const seen: AbortSignal[] = [];
  const tool = defineTool({
    name: "loud",
    description: "Prints until it is stopped.",
    inputSchema: { type: "object" },
    handler: async (_, { print, signal }) => {
      seen.push(signal);
      await print("hello");
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    },
  });
  const { service, errors } = await serve([tool]);
  service.failReports(failureOf("CALL_NOT_FOUND", Code.NotFound));
  service.call(1, "loud");
  await expect.poll(() => seen[0]?.aborted).toBe(true);
  await expect.poll(() => service.heartbeat).toEqual([]);
  expect(service.results).toEqual([]);
  expect(errors).toEqual([]);
});

test("a hand-out that has ended does not start again", async () => {
  const { service } = await serve([double]);
  service.call(1, "double", { n: 4 });
  await expect.poll(() => service.results.length).toBe(1);
  service.call(1, "double", { n: 4 });
  service.call(2, "double", { n: 4 });
  await expect.poll(() => service.results.map(({ callId }) => Number(callId.slice(5)))).toEqual([1, 2]);
});

test("closing drains, waits for what runs, then aborts it", async () => {
  const { tool, calls } = createHeldTool();
  const { service, worker } = await serve([tool], { drainTimeoutMs: 40 });
  service.call(1, "held");
  await expect.poll(() => calls.length).toBe(1);
  await worker.close();
  await worker.closed;
  expect(service.drained).toBe(true);
  expect(service.results[0]?.outcome.case).toBe("cancelled");
  await expect.poll(() => service.connected).toBe(false);
  await worker.close();
});

test("a worker that is refused for good says why", async () => {
  const { service, worker, errors } = await serve([double]);
  service.breakConnection(failureOf("UNAUTHENTICATED", Code.Unauthenticated));
  await expect(worker.closed).rejects.toMatchObject({ reason: "UNAUTHENTICATED" });
  expect(errors).toHaveLength(1);
});

test("a signal ends it before the server was ever reached", async () => {
  const controller = new AbortController();
  const transport = createRouterTransport(() => {});
  const cadre = createCadre({ baseUrl: "http://fake", transport });
  controller.abort();
  await expect(cadre.tools.serve([double], { signal: controller.signal })).rejects.toMatchObject({
    reason: "CANCELLED",
  });
});

test("a call whose silence is timed gets heartbeats in time, although the server asked for few", async () => {
  const { tool, calls } = createHeldTool();
  const { service } = await serve([tool], {}, createFakeToolWorkerService(60_000));
  service.call(1, "held");
  await expect.poll(() => calls.length).toBe(1);
  expect(service.heartbeatsAt).toEqual([]);
  const callId = service.call(2, "held", {}, "timed", 1_000);
  await expect.poll(() => service.heartbeatsAt.length).toBeGreaterThanOrEqual(3);
  expect(service.heartbeat).toContain(callId);
  calls[1]?.end();
  await expect.poll(() => service.results.length).toBe(1);
  calls[0]?.end();
});
