import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type DependencyHealth,
  ReadinessService,
  type ServiceHealthSchema,
  ServingState,
} from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { ServiceName } from "../mesh/mesh.ts";
import { type Implementation, implement } from "../rpc/implementation.ts";
import type { Dependency } from "./platform.ts";

/** How long a dependency may take to say how it is. */
const checkTimeoutMs = 1_000;

/** How a service is, and each of its dependencies, asked now. */
export async function checkReadiness(
  service: ServiceName,
  version: string,
  dependencies: readonly Dependency[],
): Promise<MessageInitShape<typeof ServiceHealthSchema>> {
  const checked = await Promise.all(dependencies.map(checkDependency));
  const isServing = checked.every(({ state, servesWithout }) => servesWithout || state === ServingState.SERVING);
  return {
    service,
    version,
    state: isServing ? ServingState.SERVING : ServingState.NOT_SERVING,
    dependencies: checked,
  };
}

async function checkDependency({
  name,
  servesWithout = false,
  check,
}: Dependency): Promise<Pick<DependencyHealth, "name" | "state" | "detail" | "servesWithout">> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<{ state: ServingState; detail: string }>((resolve) => {
    timer = setTimeout(resolve, checkTimeoutMs, { state: ServingState.NOT_SERVING, detail: "does not answer" });
  });
  const { state, detail } = await Promise.race([check(), timeout]);
  clearTimeout(timer);
  return { name, state, detail, servesWithout };
}

/** `ReadinessService` of a service, for the gateway's breakdown. */
export function readinessImplementation(
  check: () => Promise<MessageInitShape<typeof ServiceHealthSchema>>,
): Implementation<typeof ReadinessService> {
  return implement(ReadinessService, {
    async getReadiness() {
      return { health: await check() };
    },
  });
}
