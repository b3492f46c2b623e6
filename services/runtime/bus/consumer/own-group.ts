import { requeuedFor } from "../dead-letter-event.ts";
import type { ReceivedEvent } from "../event-bus.ts";
import type { Consumer, Handler } from "./handler.ts";

/** Lets a requeued event through to the group that had failed; the others had it before. */
export function ownGroup(consumer: Consumer, next: Handler<ReceivedEvent>): Handler<ReceivedEvent> {
  return async (event, signal) => (isForOthers(consumer, event) ? "not-ours" : next(event, signal));
}

/** Whether an event was requeued for another group. */
export function isForOthers({ group }: Consumer, event: ReceivedEvent): boolean {
  const wanted = requeuedFor(event);
  return wanted !== undefined && wanted !== group;
}
