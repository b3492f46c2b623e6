import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { Behavior, InteropRequestSchema, InteropService } from "../../../test/support/gen/cadre/test/v1/interop_pb.js";
import { type HandlerWatch, interopHandlers } from "../../../test/support/interop-handlers.ts";
import { startMeshPair } from "../../../test/support/mesh-pair.ts";
import { settled, until } from "../../../test/support/settled.ts";
import { type Implementation, implement } from "../rpc/implementation.ts";
import { arrivedDeadlineKey } from "../rpc/invoke.ts";

// What holds on both planes of the mesh beside what test/interop shows.

const planes = ["grpc", "memory"] as const;
type Plane = (typeof planes)[number];

async function start(
  plane: Plane,
  watch: HandlerWatch = {},
  overrides: Partial<ReturnType<typeof interopHandlers>> = {},
) {
  const handlers = { ...interopHandlers(watch), ...overrides };
  const seen: { deadline?: number } = {};
  const pair = await startMeshPair(plane, {
    implementations: [implement(InteropService, handlers) as Implementation],
    serverInterceptors: [
      (next) => (request) => {
        seen.deadline = request.contextValues.get(arrivedDeadlineKey);
        return next(request);
      },
    ],
  });
  onTestFinished(() => pair.close());
  return { ...pair, client: createClient(InteropService, pair.transport), seen };
}

async function codeOf(call: Promise<unknown>): Promise<Code | undefined> {
  return call.then(
    () => undefined,
    (thrown: unknown) => ConnectError.from(thrown).code,
  );
}

test.each(planes)("over %s, a slow reader holds up the handler that answers it", async (plane) => {
  let sent = 0;
  const bytes = 16 * 1024;
  const { transport } = await start(
    plane,
    {},
    {
      async *serverStream() {
        for (; sent < 10_000; sent++) yield { index: sent, data: new Uint8Array(bytes) };
      },
    },
  );
  const ending = new AbortController();
  const requests = (async function* () {
    yield {};
  })();
  const response = await transport.stream(
    InteropService.method.serverStream,
    ending.signal,
    undefined,
    undefined,
    requests,
  );
  const reader = response.message[Symbol.asyncIterator]();
  await reader.next();
  expect((await settled(() => sent)) * bytes).toBeLessThan(1024 * 1024);
  const before = sent;
  for (let read = 0; read < 100; read++) await reader.next();
  await until(() => sent >= before + 50);
  ending.abort();
});

test.each(planes)("over %s, a handler that reads slowly holds up its caller", async (plane) => {
  let sent = 0;
  const bytes = 16 * 1024;
  const { client } = await start(
    plane,
    {},
    {
      async clientStream(requests, { signal }) {
        for await (const _ of requests) {
          await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        }
        return {};
      },
    },
  );
  const ending = new AbortController();
  const call = client.clientStream(
    (async function* () {
      for (; sent < 10_000; sent++) yield { data: new Uint8Array(bytes) };
    })(),
    { signal: ending.signal },
  );
  expect((await settled(() => sent)) * bytes).toBeLessThan(1024 * 1024);
  expect(sent).toBeGreaterThan(0);
  ending.abort();
  expect(await codeOf(call)).toBe(Code.Canceled);
});

test.each(planes)(
  "over %s, a stream that fails loses none of a thousand messages, however slowly they are read",
  async (plane) => {
    const { client } = await start(plane);
    let read = 0;
    const failure = await (async () => {
      for await (const _ of client.serverStream({ behavior: Behavior.FAIL, count: 1_000, answerBytes: 1_000 })) {
        read += 1;
        if (read % 100 === 1) await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })().catch((thrown: unknown) => thrown);
    expect(read).toBe(1_000);
    expect(ConnectError.from(failure).code).toBe(Code.NotFound);
  },
);

test.each(planes)("over %s, a reader that leaves ends the handler's generator", async (plane) => {
  let returned = false;
  const { transport } = await start(plane, { onReturn: () => (returned = true) });
  const requests = (async function* () {
    yield create(InteropRequestSchema, { behavior: Behavior.HANG, count: 2 });
  })();
  const response = await transport.stream(
    InteropService.method.serverStream,
    undefined,
    undefined,
    undefined,
    requests,
  );
  for await (const _ of response.message) break;
  await until(() => returned);
});

test.each(planes)(
  "over %s, a handler that answers before it has read everything ends its caller's requests",
  async (plane) => {
    let ended = false;
    const { client } = await start(
      plane,
      {},
      {
        async clientStream() {
          return { requests: 7 };
        },
      },
    );
    const requests = (async function* () {
      try {
        for (;;) yield { data: new Uint8Array(10_000) };
      } finally {
        ended = true;
      }
    })();
    expect((await client.clientStream(requests)).requests).toBe(7);
    await until(() => ended);
  },
);

test.each(planes)("over %s, the deadline reaches handler and interceptors", async (plane) => {
  let remainingMs: number | undefined;
  const { client, seen } = await start(plane, { onStart: (_, context) => (remainingMs = context.timeoutMs()) });
  const before = Date.now();
  await client.unary({}, { timeoutMs: 60_000 });
  expect(remainingMs).toBeGreaterThan(50_000);
  expect(remainingMs).toBeLessThanOrEqual(60_000);
  expect(Math.abs((seen.deadline ?? 0) - before - 60_000)).toBeLessThan(10_000);
  await client.unary({});
  expect(remainingMs).toBeUndefined();
});

test.each(planes)("over %s, a handler that ignores its deadline does not hold its caller", async (plane) => {
  const { client } = await start(plane, {}, { unary: () => new Promise(() => {}) });
  expect(await codeOf(client.unary({}, { timeoutMs: 100 }))).toBe(Code.DeadlineExceeded);
});

test.each(planes)("over %s, a timeout that is over, and a signal that aborted, let no call out", async (plane) => {
  let started = 0;
  const { client } = await start(plane, { onStart: () => (started += 1) });
  expect(await codeOf(client.unary({}, { timeoutMs: 0 }))).toBe(Code.DeadlineExceeded);
  expect(await codeOf(client.unary({}, { signal: AbortSignal.abort() }))).toBe(Code.Canceled);
  expect(started).toBe(0);
});

test.each(planes)("over %s, draining lets running calls end and takes no new ones", async (plane) => {
  let running = 0;
  let finish = (): void => {};
  const { client, closeServer } = await start(
    plane,
    {},
    {
      async unary() {
        running += 1;
        await new Promise<void>((resolve) => (finish = resolve));
        return { index: 42 };
      },
    },
  );
  const call = client.unary({});
  await until(() => running === 1);
  const closing = closeServer(10_000);
  expect(await codeOf(client.clientStream((async function* () {})()))).toBe(Code.Unavailable);
  finish();
  expect((await call).index).toBe(42);
  await closing;
});

test.each(planes)("over %s, what still runs after the time to drain is cut", async (plane) => {
  let running = 0;
  let reason: unknown;
  const watch: HandlerWatch = { onStart: () => (running += 1), onAbort: (_, aborted) => (reason = aborted) };
  const { client, closeServer } = await start(plane, watch);
  const code = codeOf(client.unary({ behavior: Behavior.HANG }));
  await until(() => running === 1);
  // The call would hang for good.
  await closeServer(100);
  expect(await code).toBe(Code.Unavailable);
  await until(() => reason instanceof ConnectError);
});

test.each(planes)("over %s, what is no failure of the contract tells its caller nothing", async (plane) => {
  const { client } = await start(
    plane,
    {},
    {
      unary() {
        throw new Error("password=hunter2");
      },
    },
  );
  const failure = ConnectError.from(await client.unary({}).catch((thrown: unknown) => thrown));
  expect(failure.code).toBe(Code.Internal);
  expect(JSON.stringify(failure)).not.toContain("hunter2");
});

test.each(["header", "trailer"] as const)(
  "over grpc, a %s that cannot be sent is the handler's fault",
  async (where) => {
    const { client } = await start(
      "grpc",
      {},
      {
        unary(_, context) {
          const headers = where === "header" ? context.responseHeader : context.responseTrailer;
          headers.set("x-name", "Zo\u00eb");
          return {};
        },
      },
    );
    expect(await codeOf(client.unary({}))).toBe(Code.Internal);
  },
);
