import type { Logger } from "../../log/log.ts";
import type { EventCodec } from "../envelope.ts";
import type { EventBus, ReceivedEvent } from "../event-bus.ts";
import type { Fact, Topic } from "../topics.ts";
import { deadLetter } from "./dead-letter.ts";
import { deadline } from "./deadline.ts";
import { decode, eventDecoder } from "./decode.ts";
import type { FieldReads } from "./field-reads.ts";
import type { DecodedEvent, Handler } from "./handler.ts";
import { ownGroup } from "./own-group.ts";
import { retry } from "./retry.ts";

/** How long one attempt may take unless said, in milliseconds: three attempts end within 4 s. */
export const defaultAttemptMs = 1_000;

export interface AttemptsOptions<M extends Fact> {
  readonly bus: EventBus;
  readonly codec: EventCodec;
  readonly topic: Topic<M>;
  readonly group: string;
  readonly attemptMs: number;
  readonly fieldReads?: FieldReads;
  readonly log: Logger;
}

/**
 * What stands around a single event for every consumer, in this order: it is of
 * the group, it is put aside when no attempt is left, each attempt has a
 * deadline, and it is decoded.
 *
 * @param make the innermost handler; it calls `begun` when the effect begins,
 *   from when on a late attempt is the event's fault
 */
export function attempts<M extends Fact>(
  options: AttemptsOptions<M>,
  make: (begun: (decoded: DecodedEvent<M>) => void) => Handler<DecodedEvent<M>>,
): Handler<ReceivedEvent> {
  const { bus, codec, topic, group, attemptMs, log } = options;
  const consumer = { topic: topic.name, group };
  const begun = new WeakSet<ReceivedEvent>();
  const decoded = decode(
    eventDecoder(codec, topic, options.fieldReads?.sampler(topic, group)),
    make(({ event }) => begun.add(event)),
  );
  const timed = deadline(attemptMs, (event) => begun.has(event), decoded);
  return ownGroup(consumer, deadLetter(consumer, { bus, log }, retry(timed)));
}
