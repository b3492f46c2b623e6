import type { Meter, Tracer } from "@opentelemetry/api";
import type { Logger } from "../../log/log.ts";
import type { Database } from "../../postgres/database.ts";
import { startPruning } from "../../postgres/pruning.ts";
import type { EventCodec } from "../envelope.ts";
import type { EventBus, Subscription } from "../event-bus.ts";
import type { Fact, Topic } from "../topics.ts";
import { attempts, defaultAttemptMs } from "./attempts.ts";
import { createBatch } from "./batch.ts";
import type { FactHandler } from "./bounded-handler.ts";
import { eventDecoder } from "./decode.ts";
import { dedup } from "./dedup.ts";
import type { FieldReads } from "./field-reads.ts";
import { pruneHandledEvents } from "./handled-event.ts";
import { telemetry } from "./telemetry.ts";

export interface ConsumeOptions<M extends Fact, Schema> {
  readonly bus: EventBus;
  readonly codec: EventCodec;
  readonly topic: Topic<M>;
  /** The consumer group, for example `gateway.presence`. */
  readonly group: string;
  /** Where the effects go, together with the record of what was handled. */
  readonly database: Database<Schema>;
  readonly handle: FactHandler<M, Schema>;
  /** How long one attempt may take, in milliseconds. Default 1,000: three attempts end within 4 s. */
  readonly attemptMs?: number;
  /** Where it is gathered which fields the handler reads; nowhere unless given. */
  readonly fieldReads?: FieldReads;
  readonly log: Logger;
  readonly tracer: Tracer;
  readonly meter: Meter;
}

/**
 * Follows a topic with everything that a consumer needs, in the order that is
 * the same for all. The handler acknowledges by returning; its effect, made by
 * the transaction that it is given, happens once, however often the event comes.
 * Needs `createHandledEventTable` in the schema, and prunes that table.
 */
export function consume<M extends Fact, Schema>(options: ConsumeOptions<M, Schema>): Subscription {
  const { bus, codec, topic, group, database, handle, attemptMs = defaultAttemptMs, log, tracer } = options;
  const consumer = { topic: topic.name, group };
  const decodeEvent = eventDecoder(codec, topic, options.fieldReads?.sampler(topic, group));
  // A batch that is cut leaves time for the attempts of the event that it was cut for.
  const batch = createBatch({ consumer, decode: decodeEvent, database, handle, batchMs: attemptMs / 2, log, tracer });
  const own = attempts<M>({ bus, consumer, decodeEvent, attemptMs, log }, (begun) => {
    const marked: FactHandler<M, Schema> = (decoded, transaction, signal) => {
      begun(decoded);
      return handle(decoded, transaction, signal);
    };
    return dedup(consumer, database, marked, attemptMs);
  });
  const batched = batch.layer(own);
  const measured = telemetry(consumer, options, batched);
  const subscription = bus.subscribe({
    ...consumer,
    prepare: (events, signal) => batch.prepare(events, signal),
    handle: async (event, signal) => {
      await measured(event, signal);
    },
  });
  const stopPruning = startPruning("handled events", (limit) => pruneHandledEvents(database.engine, limit), log);
  return {
    async stop() {
      await Promise.all([subscription.stop(), stopPruning()]);
    },
  };
}
