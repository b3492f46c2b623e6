import type { ReceivedEvent } from "../event-bus.ts";
import type { Fact } from "../topics.ts";

/**
 * What became of an event that is acknowledged: its effect is there
 * (`handled`), was there before (`repeated`), is another group's business
 * (`not-ours`), or the event is kept for a person to look at (`dead-lettered`).
 */
export type Outcome = "handled" | "repeated" | "not-ours" | "dead-lettered";

/** A layer of a consumer: acknowledges by returning, refuses by throwing. */
export type Handler<Input> = (input: Input, signal: AbortSignal) => Promise<Outcome>;

/** An event with the fact that it carries. */
export interface DecodedEvent<M extends Fact> {
  readonly event: ReceivedEvent;
  readonly fact: M;
  /** The fact's id, `evt_…`. */
  readonly eventId: string;
  /** The org that envelope, key and fact agree upon. */
  readonly orgId: string;
}

/** Who consumes; names it in spans, metrics, dead letters and the record of what was handled. */
export interface Consumer {
  readonly topic: string;
  /** The consumer group, for example `gateway.presence`. */
  readonly group: string;
}
