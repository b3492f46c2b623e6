import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { Interceptor } from "@connectrpc/connect";
import { createHealthRegistry } from "../health/health-registry.ts";
import { healthService } from "../health/health-service.ts";
import type { Mesh, MeshServer, ServiceName } from "../mesh/mesh.ts";
import { reflectionServices } from "../reflection/reflection-service.ts";
import type { Implementation } from "../rpc/implementation.ts";
import type { Dependency } from "./platform.ts";
import { checkReadiness, readinessImplementation } from "./readiness.ts";

export interface ServeWithHealthOptions {
  readonly implementations: readonly Implementation[];
  readonly dependencies: readonly Dependency[];
  readonly interceptors: readonly Interceptor[];
  readonly version: string;
  readonly reflection: boolean;
}

/** A change of a dependency is told to who watches health after that time at the latest. */
const watchEveryMs = 2_000;

/**
 * Serves a service on the mesh with `grpc.health.v1`, readiness and, where it
 * is on, reflection. Health follows the dependencies; while the server drains
 * it says NOT_SERVING.
 */
export async function serveWithHealth(
  mesh: Mesh,
  name: ServiceName,
  options: ServeWithHealthOptions,
): Promise<MeshServer> {
  const registry = createHealthRegistry();
  const check = () => checkReadiness(name, options.version, options.dependencies);
  const services = [...options.implementations, readinessImplementation(check)];
  const served = [...services, healthService(registry)];
  const reflected = options.reflection ? reflectionServices(served) : [];

  let isDraining = false;
  const update = async (): Promise<void> => {
    const { state } = await check();
    const told = state === ServingState.SERVING && !isDraining ? "serving" : "not_serving";
    for (const service of ["", ...services.map(({ service }) => service.typeName)]) registry.set(service, told);
  };
  await update();
  const server = await mesh.serve(name, {
    implementations: [...served, ...reflected],
    interceptors: options.interceptors,
  });
  const timer = setInterval(() => void update(), watchEveryMs);
  timer.unref();
  return {
    address: server.address,
    async close(graceMs) {
      isDraining = true;
      clearInterval(timer);
      await update();
      await server.close(graceMs);
    },
  };
}
