import { AppError } from "../../errors/app-error.ts";
import type { EventCodec } from "../envelope.ts";
import type { ReceivedEvent } from "../event-bus.ts";
import type { Fact, Topic } from "../topics.ts";
import type { FieldSampler } from "./field-reads.ts";
import type { DecodedEvent, Handler } from "./handler.ts";

/** The event holds no fact of its topic, and never will: trying again is in vain. */
export class UndecodableError extends Error {
  override readonly name = "UndecodableError";
  override readonly cause: AppError;

  constructor(cause: AppError) {
    super(cause.message, { cause });
    this.cause = cause;
  }
}

/**
 * Takes the fact out of the event.
 *
 * @throws UndecodableError if there is none
 */
export function decode<M extends Fact>(
  decodeEvent: (event: ReceivedEvent) => Promise<DecodedEvent<M>>,
  next: Handler<DecodedEvent<M>>,
): Handler<ReceivedEvent> {
  return async (event, signal) => next(await decodeEvent(event), signal);
}

/**
 * Makes what takes the fact out of one event.
 *
 * @param sample sees each fact before anybody else does
 */
export function eventDecoder<M extends Fact>(
  codec: EventCodec,
  topic: Topic<M>,
  sample?: FieldSampler,
): (event: ReceivedEvent) => Promise<DecodedEvent<M>> {
  return async (event) => {
    const fact = await factOf(codec, topic, event);
    // The codec has seen that they are there.
    const { eventId = "", orgId = "" } = fact.metadata ?? {};
    sample?.(event, fact);
    return { event, fact, eventId, orgId };
  };
}

async function factOf<M extends Fact>(codec: EventCodec, topic: Topic<M>, event: ReceivedEvent): Promise<M> {
  try {
    return await codec.decode(topic, event);
  } catch (thrown) {
    // Without its registry the codec cannot tell.
    if (thrown instanceof AppError && thrown.reason !== "UNAVAILABLE") throw new UndecodableError(thrown);
    throw thrown;
  }
}
