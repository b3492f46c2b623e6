import { type DescService, getOption } from "@bufbuild/protobuf";
import { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { host } from "@cadre/gen/cadre/options/v1/options_pb";
import type { HealthRegistry } from "../../runtime/health/health-registry.ts";
import type { Health } from "./health.ts";

export interface WatchHealthOptions {
  readonly health: Pick<Health, "breakdown">;
  /** What `grpc.health.v1` answers from. */
  readonly registry: HealthRegistry;
  /** The services to tell of, each by the process that serves it. */
  readonly services: readonly DescService[];
  /** How often the processes are asked. Default 2 s. */
  readonly intervalMs?: number;
}

/**
 * Tells the registry of each public service whether the process behind it
 * serves, and of the gateway itself (the empty name) that it does: a load
 * balancer must not drop it because one of the services is away. Watchers hear
 * of a change after an interval at most.
 *
 * Returns what ends it; then everything is `not_serving`.
 */
export function watchHealth({ health, registry, services, intervalMs = 2_000 }: WatchHealthOptions): () => void {
  let asking = false;
  let stopped = false;

  async function ask(): Promise<void> {
    if (asking) return;
    asking = true;
    const { services: states } = await health.breakdown();
    asking = false;
    if (stopped) return;
    const serving = new Set(states.filter(({ state }) => state === ServingState.SERVING).map(({ service }) => service));
    for (const service of services) {
      registry.set(service.typeName, serving.has(getOption(service, host)) ? "serving" : "not_serving");
    }
  }

  registry.set("", "serving");
  for (const service of services) registry.set(service.typeName, "not_serving");
  void ask(); // never rejects: `breakdown` does not
  const timer = setInterval(ask, intervalMs);
  timer.unref();
  return () => {
    stopped = true;
    clearInterval(timer);
    registry.set("", "not_serving");
    for (const service of services) registry.set(service.typeName, "not_serving");
  };
}
