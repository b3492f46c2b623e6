import pino from "pino";
import { createEventCodec, eventIdOf } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent, EventBus } from "../../services/runtime/bus/event-bus.ts";
import { type Relay, startRelay } from "../../services/runtime/bus/relay.ts";
import { createLocalSchemaIds } from "../../services/runtime/bus/schema-ids.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { batchSize, type Contestant, createCounter } from "./contestant.ts";
import type { Outbox } from "./outbox.ts";

/** A contestant whose way can be measured event by event. */
export interface SteadyContestant extends Contestant {
  readonly idOf: (event: BusEvent) => string;
  /** Stores events where the way begins, and has them sent at once. */
  write(events: readonly BusEvent[]): Promise<void>;
  /** Tells of each event that was handled from now on. Returns what ends it. */
  follow(onHandled: (eventId: string) => void): () => Promise<void>;
}

/** Cadre: from an outbox in PostgreSQL by the relay and a bus to a handler that is given the decoded fact. */
export function cadre(name: string, bus: EventBus, outbox: Outbox): SteadyContestant {
  const codec = createEventCodec(createLocalSchemaIds());
  const log = pino({ level: "warn" });
  const counter = createCounter();
  let onHandled: (eventId: string) => void = () => undefined;
  let relay: Relay | undefined;
  bus.subscribe({
    topic: conversationTurns.name,
    group: "bench",
    handle: async (event) => {
      await codec.decode(conversationTurns, event);
      counter.add(1);
      onHandled(eventIdOf(event));
    },
  });
  let prepared = 0;
  return {
    name,
    async prepare(events) {
      await outbox.add(events);
      prepared = events.length;
    },
    async run() {
      const handled = counter.more(prepared);
      const running = startRelay({ name: "bench", source: outbox.source, bus, log, batchSize });
      await handled;
      await running.stop();
    },
    idOf: eventIdOf,
    async write(events) {
      await outbox.add(events);
      relay?.wake();
    },
    follow(tell) {
      onHandled = tell;
      const running = startRelay({ name: "bench", source: outbox.source, bus, log, batchSize });
      relay = running;
      return () => running.stop();
    },
    async close() {
      await bus.close();
      await outbox.close();
    },
  };
}
