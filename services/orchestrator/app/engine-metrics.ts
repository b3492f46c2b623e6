import type { Meter } from "@opentelemetry/api";
import type { Engine } from "./engine.ts";

/** Shows operators what the engine holds. */
export function observeEngine(meter: Meter, engine: Pick<Engine, "status">): void {
  const gauge = (name: string, description: string, read: () => number): void => {
    meter.createObservableGauge(name, { description }).addCallback((result) => result.observe(read()));
  };
  gauge("cadre_commit_queue", "Changes that wait to be stored.", () => engine.status.queued);
  gauge("cadre_unrelayed_entries", "Journal entries that wait for the bus.", () => engine.status.unrelayed);
  gauge("cadre_owned_shards", "Shards that this process owns, of 64.", () => engine.status.shards);
  gauge("cadre_active_sessions", "Sessions that are held in memory.", () => engine.status.sessions);
  gauge("cadre_event_readers", "Open streams of session events.", () => engine.status.readers);
}
