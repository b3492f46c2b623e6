import type { Meter, Tracer } from "@opentelemetry/api";
import type { Logger } from "../../log/log.ts";
import type { EventCodec } from "../envelope.ts";
import type { EventBus, ReceivedEvent, Subscription } from "../event-bus.ts";
import type { Fact, Topic } from "../topics.ts";
import { deadLetter } from "./dead-letter.ts";
import { deadline } from "./deadline.ts";
import { decode, eventDecoder } from "./decode.ts";
import type { DecodedEvent, Handler } from "./handler.ts";
import { ownGroup } from "./own-group.ts";
import { retry } from "./retry.ts";
import { telemetry } from "./telemetry.ts";

export interface ConsumeRepeatableOptions<M extends Fact> {
  readonly bus: EventBus;
  readonly codec: EventCodec;
  readonly topic: Topic<M>;
  /** The consumer group, for example `orchestrator.requests`. */
  readonly group: string;
  /** Acknowledges by returning. Its effect has a key of its own, so that calling it again changes nothing. */
  readonly handle: (decoded: DecodedEvent<M>, signal: AbortSignal) => Promise<void>;
  /** How long one attempt may take, in milliseconds. Default 1,000: three attempts end within 4 s. */
  readonly attemptMs?: number;
  readonly log: Logger;
  readonly tracer: Tracer;
  readonly meter: Meter;
}

/**
 * Follows a topic as `consume` does, for a handler whose effect is made
 * elsewhere, and there only once: it gets no transaction, and is called again
 * for an event that is delivered again.
 */
export function consumeRepeatable<M extends Fact>(options: ConsumeRepeatableOptions<M>): Subscription {
  const { bus, codec, topic, group, handle, attemptMs = 1_000, log } = options;
  const consumer = { topic: topic.name, group };
  const begun = new WeakSet<ReceivedEvent>();
  const handled: Handler<DecodedEvent<M>> = async (decoded, signal) => {
    begun.add(decoded.event);
    await handle(decoded, signal);
    return "handled";
  };
  const decoded = decode(eventDecoder(codec, topic), handled);
  const timed: Handler<ReceivedEvent> = deadline(attemptMs, (event) => begun.has(event), decoded);
  const kept = deadLetter(consumer, { bus, log }, retry(timed));
  const measured = telemetry(consumer, options, ownGroup(consumer, kept));
  return bus.subscribe({
    ...consumer,
    handle: async (event, signal) => {
      await measured(event, signal);
    },
  });
}
