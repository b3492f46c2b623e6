import { create } from "@bufbuild/protobuf";
import { GetReadinessResponseSchema, ServiceHealthSchema, ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { pino } from "pino";
import { expect, test } from "vitest";
import { AppError } from "../../runtime/errors/app-error.ts";
import { createHealthRegistry } from "../../runtime/health/health-registry.ts";
import { createHealth, type HealthOptions } from "./health.ts";
import { watchHealth } from "./watch-health.ts";

type Peer = HealthOptions["peers"] extends ReadonlyMap<string, infer P> ? P : never;

function peer(service: string, state: () => ServingState): Peer {
  return {
    async getReadiness() {
      return create(GetReadinessResponseSchema, { health: create(ServiceHealthSchema, { service, state: state() }) });
    },
  };
}

const serving = (service: string): Peer => peer(service, () => ServingState.SERVING);
const deaf: Peer = {
  getReadiness: (_request, options) =>
    new Promise((_, reject) => options?.signal?.addEventListener("abort", () => reject(options.signal?.reason))),
};

function healthOf(peers: Readonly<Record<string, Peer>>) {
  const log = pino({ level: "silent" });
  return createHealth({ peers: new Map(Object.entries(peers)), version: "1", mode: "embedded", log, timeoutMs: 50 });
}

async function statesOf(peers: Readonly<Record<string, Peer>>): Promise<Record<string, ServingState>> {
  const { services } = await healthOf(peers).breakdown();
  return Object.fromEntries(services.map(({ service, state }) => [service, state]));
}

test("one that does not answer, and one that says so, do not serve; the others are not held up", async () => {
  expect(
    await statesOf({ tools: serving("tools"), orchestrator: deaf, credentials: peer("credentials", () => 2) }),
  ).toEqual({ gateway: 1, tools: 1, orchestrator: 2, credentials: 2 });
});

test("of one that cannot be asked it says why", async () => {
  const refusing: Peer = {
    getReadiness: () => Promise.reject(new AppError("UNAVAILABLE", "the clocks of gateway and tools differ")),
  };
  const { services } = await healthOf({ tools: refusing, orchestrator: deaf }).breakdown();
  const details = services.map(({ service, dependencies }) => [service, dependencies.map(({ detail }) => detail)]);
  expect(Object.fromEntries(details)).toEqual({
    gateway: [],
    tools: ["the clocks of gateway and tools differ"],
    orchestrator: ["no answer within 50 ms"],
  });
});

test("the whole serves if each does", async () => {
  expect((await healthOf({ tools: serving("tools") }).breakdown()).state).toBe(ServingState.SERVING);
  expect((await healthOf({ tools: serving("tools"), credentials: deaf }).breakdown()).state).toBe(
    ServingState.NOT_SERVING,
  );
});

test("strangers who ask at once cause one question", async () => {
  let questions = 0;
  const health = healthOf({
    tools: peer("tools", () => {
      questions += 1;
      return ServingState.SERVING;
    }),
  });
  expect(await Promise.all(Array.from({ length: 50 }, () => health.serves()))).toEqual(Array(50).fill(true));
  expect(questions).toBe(1);
});

test("who watches hears that a service came and went, and of no other", async () => {
  let state: ServingState = ServingState.SERVING;
  const registry = createHealthRegistry();
  const health = healthOf({ orchestrator: serving("orchestrator"), tools: peer("tools", () => state) });
  const stop = watchHealth({ health, registry, services: [SessionService, ToolService], intervalMs: 10 });
  const states = (): unknown[] => ["", SessionService.typeName, ToolService.typeName].map((name) => registry.get(name));
  await expect.poll(states).toEqual(["serving", "serving", "serving"]);
  state = ServingState.NOT_SERVING;
  await expect.poll(states).toEqual(["serving", "serving", "not_serving"]);
  stop();
  expect(states()).toEqual(["not_serving", "not_serving", "not_serving"]);
});
