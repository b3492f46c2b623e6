import type { Meter, Tracer } from "@opentelemetry/api";
import type { Logger } from "../../log/log.ts";
import type { EventCodec } from "../envelope.ts";
import type { EventBus, Subscription } from "../event-bus.ts";
import type { Fact, Topic } from "../topics.ts";
import { attempts, defaultAttemptMs } from "./attempts.ts";
import { eventDecoder } from "./decode.ts";
import type { FieldReads } from "./field-reads.ts";
import type { DecodedEvent } from "./handler.ts";
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
  /** Where it is gathered which fields the handler reads; nowhere unless given. */
  readonly fieldReads?: FieldReads;
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
  const { bus, codec, topic, group, handle, attemptMs = defaultAttemptMs, log } = options;
  const consumer = { topic: topic.name, group };
  const decodeEvent = eventDecoder(codec, topic, options.fieldReads?.sampler(topic, group));
  const own = attempts<M>({ bus, consumer, decodeEvent, attemptMs, log }, (begun) => async (decoded, signal) => {
    begun(decoded);
    await handle(decoded, signal);
    return "handled";
  });
  const measured = telemetry(consumer, options, own);
  return bus.subscribe({
    ...consumer,
    handle: async (event, signal) => {
      await measured(event, signal);
    },
  });
}
