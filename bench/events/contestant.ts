import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";

/** A way for events from a sender to a handler. */
export interface Contestant {
  readonly name: string;
  /** Stores the events where the way begins; not measured. */
  prepare(events: readonly BusEvent[]): Promise<void>;
  /** Sends what was prepared; resolves when the handler has had all of it. */
  run(): Promise<void>;
  close(): Promise<void>;
}

/** Events of a request: the relay's default, and the same on every side. */
export const batchSize = 500;

/** Counts events, and tells when so many more have come. */
export function createCounter(): {
  readonly add: (count: number) => void;
  readonly more: (count: number) => Promise<void>;
} {
  let seen = 0;
  let wanted = Number.POSITIVE_INFINITY;
  let resolve: () => void = () => undefined;
  return {
    add(count) {
      seen += count;
      if (seen >= wanted) resolve();
    },
    more(count) {
      wanted = seen + count;
      return new Promise((done) => {
        resolve = done;
      });
    },
  };
}
