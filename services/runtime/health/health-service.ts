import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "@cadre/gen/grpc/health/v1/health_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Implementation, implement } from "../rpc/implementation.ts";
import type { HealthRegistry, HealthState } from "./health-registry.ts";

/**
 * The standard health service of gRPC (`grpc.health.v1`), which load balancers
 * and orchestrators of containers ask. A service that the registry does not
 * know is `not_found`; watching it tells when it appears.
 */
export function healthService(registry: HealthRegistry): Implementation<typeof Health> {
  return implement(Health, {
    check({ service }) {
      const state = registry.get(service);
      if (state === undefined) throw new ConnectError("unknown service", Code.NotFound);
      return { status: statusOf(state) };
    },
    list() {
      const statuses = [...registry.list()].map(([service, state]) => [service, { status: statusOf(state) }] as const);
      return { statuses: Object.fromEntries(statuses) };
    },
    async *watch({ service }, { signal }) {
      for await (const state of registry.watch(service, signal)) yield { status: statusOf(state) };
    },
  });
}

function statusOf(state: HealthState | undefined): ServingStatus {
  switch (state) {
    case "serving":
      return ServingStatus.SERVING;
    case "not_serving":
      return ServingStatus.NOT_SERVING;
    case undefined:
      return ServingStatus.SERVICE_UNKNOWN;
  }
}
