import type { EventBus, ReceivedEvent } from "../../services/runtime/bus/event-bus.ts";

/** What a group got so far. */
export interface Collected {
  readonly events: readonly ReceivedEvent[];
  stop(): Promise<void>;
}

/** Follows a topic and keeps what comes. */
export function collectEvents(bus: EventBus, topic: string, group: string): Collected {
  const events: ReceivedEvent[] = [];
  const subscription = bus.subscribe({
    topic,
    group,
    handle: async (event) => {
      events.push(event);
    },
  });
  return { events, stop: () => subscription.stop() };
}
