import type { Meter } from "@opentelemetry/api";
import type { EdgeServer } from "../../runtime/edge/edge-server.ts";

/** Shows what the public port carries, and what it refused or cut, among the metrics. */
export function observeEdge(meter: Meter, edge: Pick<EdgeServer, "stats">): void {
  meter
    .createObservableUpDownCounter("cadre_edge_connections", { description: "Open connections of the public port" })
    .addCallback((result) => result.observe(edge.stats().connections));
  meter
    .createObservableCounter("cadre_edge_rejected_total", {
      description: "Connections of the public port that were refused or cut, by cause",
    })
    .addCallback((result) => {
      for (const [cause, count] of Object.entries(edge.stats().rejected)) result.observe(count, { cause });
    });
}
