/** Whether a service takes calls. */
export type HealthState = "serving" | "not_serving";

/** What the process says of the services that it hosts. The empty name stands for the process. */
export interface HealthRegistry {
  /** Tells the state of a service, and whoever watches it. */
  set(service: string, state: HealthState): void;
  /** The state of a service; `undefined` for one that was never set. */
  get(service: string): HealthState | undefined;
  /** All services with their states. */
  list(): ReadonlyMap<string, HealthState>;
  /**
   * The state of a service now, and each time it changes. A slow reader misses
   * what was overtaken, never the latest. Ends when the signal aborts.
   */
  watch(service: string, signal: AbortSignal): AsyncIterable<HealthState | undefined>;
}

/** A registry that knows no service yet. */
export function createHealthRegistry(): HealthRegistry {
  const states = new Map<string, HealthState>();
  const watchers = new Set<() => void>();
  return {
    set(service, state) {
      if (states.get(service) === state) return;
      states.set(service, state);
      for (const wake of watchers) wake();
    },
    get: (service) => states.get(service),
    list: () => new Map(states),
    async *watch(service, signal) {
      let wake = (): void => {};
      const onChange = (): void => wake();
      watchers.add(onChange);
      signal.addEventListener("abort", onChange);
      try {
        let told = states.get(service);
        yield told;
        while (!signal.aborted) {
          if (states.get(service) === told) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
            continue;
          }
          told = states.get(service);
          yield told;
        }
      } finally {
        watchers.delete(onChange);
        signal.removeEventListener("abort", onChange);
      }
    },
  };
}
