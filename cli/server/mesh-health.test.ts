import { once } from "node:events";
import { createServer } from "node:http";
import { create, toJson } from "@bufbuild/protobuf";
import { GetHealthResponseSchema, ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import pino from "pino";
import { expect, onTestFinished, test } from "vitest";
import { awaitServing, readTroubles } from "./mesh-health.ts";

const log = pino({ level: "silent" });
const never = new AbortController().signal;
const { SERVING, NOT_SERVING } = ServingState;

/** A gateway's admin port of which the tools do not serve before it was asked so often. */
async function startGateway(askedBefore: number) {
  let asked = 0;
  const server = createServer((_, response) => {
    asked += 1;
    const state = asked > askedBefore ? SERVING : NOT_SERVING;
    const services = [
      { service: "tools", state, dependencies: [{ name: "mesh", state, detail: "no connection" }] },
      {
        service: "orchestrator",
        state: SERVING,
        dependencies: [{ name: "kafka", state: NOT_SERVING, detail: "is away", servesWithout: true }],
      },
    ];
    const health = create(GetHealthResponseSchema, { state, services });
    response.statusCode = state === SERVING ? 200 : 503;
    response.end(JSON.stringify(toJson(GetHealthResponseSchema, health)));
  }).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("it listens on no port");
  return { adminUrl: `http://127.0.0.1:${address.port}`, asked: () => asked };
}

test("tells what does not serve, and why", async () => {
  const { adminUrl } = await startGateway(1);
  expect(await readTroubles(adminUrl)).toEqual(["tools: mesh: no connection"]);
  expect(await readTroubles(adminUrl)).toEqual([]);
});

test("waits until each gateway says that everything serves", async () => {
  const [early, late] = [await startGateway(0), await startGateway(3)];
  await awaitServing([early.adminUrl, late.adminUrl], log, never);
  expect(late.asked()).toBe(4);
  expect(early.asked()).toBe(4);
});

test("ends with its signal, also where nobody answers", async () => {
  const signal = AbortSignal.timeout(100);
  await expect(awaitServing(["http://127.0.0.1:1"], log, signal)).rejects.toMatchObject({ name: "AbortError" });
});
