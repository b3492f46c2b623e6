import { Code, ConnectError } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { Behavior, InteropService } from "../../../test/support/gen/cadre/test/v1/interop_pb.js";
import { type HandlerWatch, interopHandlers } from "../../../test/support/interop-handlers.ts";
import { startMeshPair } from "../../../test/support/mesh-pair.ts";
import { until } from "../../../test/support/settled.ts";
import { type Implementation, implement } from "./implementation.ts";
import { createMeshClient } from "./mesh-client.ts";

const planes = ["grpc", "memory"] as const;

async function start(plane: (typeof planes)[number], watch: HandlerWatch = {}) {
  const pair = await startMeshPair(plane, {
    implementations: [implement(InteropService, interopHandlers(watch)) as Implementation],
  });
  onTestFinished(() => pair.close());
  return createMeshClient(InteropService, pair.transport);
}

test.each(planes)("over %s, a stream brings its headers, its messages in order and its trailers", async (plane) => {
  const client = await start(plane);
  const seen: unknown[] = [];
  const options = {
    onHeader: (header: Headers) => seen.push(typeof header.get("x-any")),
    onTrailer: (trailer: Headers) => seen.push(typeof trailer.get("x-any")),
  };
  for await (const { index } of client.serverStream({ count: 3 }, options)) seen.push(index);
  expect(seen).toEqual(["object", 0, 1, 2, "object"]);
});

test.each(planes)("over %s, a reader that leaves ends the call", async (plane) => {
  let aborted = 0;
  let returned = 0;
  const client = await start(plane, { onAbort: () => (aborted += 1), onReturn: () => (returned += 1) });
  for await (const _ of client.serverStream({ behavior: Behavior.HANG, count: 2 })) break;
  await until(() => returned === 1);
  expect(aborted).toBe(1);
});

test.each(planes)("over %s, a failure is told to whoever reads, and to nobody else", async (plane) => {
  const client = await start(plane);
  const unread = client.serverStream({}, { signal: AbortSignal.abort() });
  expect(unread).toBeDefined();
  const failure = await (async () => {
    for await (const _ of client.serverStream({ behavior: Behavior.FAIL, count: 1 }));
  })().catch((thrown: unknown) => thrown);
  expect(ConnectError.from(failure).code).toBe(Code.NotFound);
});

test.each(planes)("over %s, the other kinds of methods are Connect's", async (plane) => {
  const client = await start(plane);
  expect((await client.unary({})).index).toBe(0);
  const requests = (async function* () {
    yield {};
    yield {};
  })();
  expect((await client.clientStream(requests)).requests).toBe(2);
});
