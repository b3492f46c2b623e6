import type { HealthService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import { onBehalfOf, requestContext } from "../../runtime/rpc/request-context.ts";
import type { Health } from "../app/health.ts";

export interface HealthHandlersDeps {
  readonly health: Pick<Health, "breakdown">;
  /** This process's metrics in the Prometheus text format. */
  readonly renderMetrics: () => Promise<string>;
}

/** What the gateway answers itself. */
export function createHealthHandlers({ health, renderMetrics }: HealthHandlersDeps): ServiceImpl<typeof HealthService> {
  return {
    getHealth(_request, context) {
      return health.breakdown(onBehalfOf(requestContext(context.values)));
    },
    async getMetrics() {
      return { text: await renderMetrics() };
    },
  };
}
