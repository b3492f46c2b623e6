import type { Logger } from "../../log/log.ts";
import type { EventBus, ReceivedEvent } from "../event-bus.ts";
import type { Fact } from "../topics.ts";
import { deadLetter } from "./dead-letter.ts";
import { deadline } from "./deadline.ts";
import { decode } from "./decode.ts";
import type { DecodedEvent, Handler } from "./handler.ts";
import { ownGroup } from "./own-group.ts";
import { retry } from "./retry.ts";

/** How long one attempt may take unless said, in milliseconds: three attempts end within 4 s. */
export const defaultAttemptMs = 1_000;

export interface AttemptsOptions<M extends Fact> {
  readonly bus: EventBus;
  readonly consumer: { readonly topic: string; readonly group: string };
  readonly decodeEvent: (event: ReceivedEvent) => Promise<DecodedEvent<M>>;
  readonly attemptMs: number;
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
  const { bus, consumer, decodeEvent, attemptMs, log } = options;
  const begun = new WeakSet<ReceivedEvent>();
  const decoded = decode(
    decodeEvent,
    make(({ event }) => begun.add(event)),
  );
  const timed = deadline(attemptMs, (event) => begun.has(event), decoded);
  return ownGroup(consumer, deadLetter(consumer, { bus, log }, retry(timed)));
}
