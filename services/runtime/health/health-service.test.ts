import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "@cadre/gen/grpc/health/v1/health_pb";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { credentials, loadPackageDefinition, type ServiceClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { protoPath } from "grpc-health-check";
import { expect, onTestFinished, test } from "vitest";
import { startMeshPair } from "../../../test/support/mesh-pair.ts";
import { createHealthRegistry } from "./health-registry.ts";
import { healthService } from "./health-service.ts";

async function start(plane: "grpc" | "memory") {
  const registry = createHealthRegistry();
  const pair = await startMeshPair(plane, { implementations: [healthService(registry)] });
  onTestFinished(() => pair.close());
  return { registry, address: pair.address, client: createClient(Health, pair.transport) };
}

test.each(["grpc", "memory"] as const)(
  "over %s, a check tells the state that was set, and of an unknown service not_found",
  async (plane) => {
    const { registry, client } = await start(plane);
    registry.set("cadre.tools.v1.ToolService", "serving");
    registry.set("", "not_serving");
    expect((await client.check({ service: "cadre.tools.v1.ToolService" })).status).toBe(ServingStatus.SERVING);
    expect((await client.check({})).status).toBe(ServingStatus.NOT_SERVING);
    const failure = await client.check({ service: "nobody" }).catch((thrown: unknown) => thrown);
    expect(ConnectError.from(failure).code).toBe(Code.NotFound);
    expect(Object.keys((await client.list({})).statuses).sort()).toEqual(["", "cadre.tools.v1.ToolService"]);
  },
);

test.each(["grpc", "memory"] as const)("over %s, a watch tells the state at once and each change", async (plane) => {
  const { registry, client } = await start(plane);
  const seen: ServingStatus[] = [];
  const ended = new AbortController();
  const failure = await (async () => {
    for await (const { status } of client.watch({ service: "tools" }, { signal: ended.signal })) {
      seen.push(status);
      if (seen.length === 1) registry.set("tools", "serving");
      if (seen.length === 2) registry.set("tools", "not_serving");
      if (seen.length === 3) ended.abort();
    }
  })().catch((thrown: unknown) => thrown);
  expect(seen).toEqual([ServingStatus.SERVICE_UNKNOWN, ServingStatus.SERVING, ServingStatus.NOT_SERVING]);
  expect(ConnectError.from(failure).code).toBe(Code.Canceled);
});

test("a watcher that was slow finds the latest state, and leaves nothing behind", async () => {
  const registry = createHealthRegistry();
  const ended = new AbortController();
  const states = registry.watch("tools", ended.signal)[Symbol.asyncIterator]();
  expect((await states.next()).value).toBeUndefined();
  registry.set("tools", "serving");
  registry.set("tools", "not_serving");
  expect((await states.next()).value).toBe("not_serving");
  const last = states.next();
  ended.abort();
  expect((await last).done).toBe(true);
});

test("the client of the package grpc-health-check understands it", async () => {
  const { registry, address } = await start("grpc");
  registry.set("tools", "serving");
  const { grpc } = loadPackageDefinition(loadSync(protoPath)) as unknown as {
    grpc: { health: { v1: { Health: ServiceClientConstructor } } };
  };
  const client = new grpc.health.v1.Health(address, credentials.createInsecure());
  onTestFinished(() => client.close());
  const answer = await new Promise((resolve, reject) => {
    client["check"]?.({ service: "tools" }, (error: Error | null, response: unknown) =>
      error ? reject(error) : resolve(response),
    );
  });
  expect(answer).toEqual({ status: ServingStatus.SERVING });
});
