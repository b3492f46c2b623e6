import { requeuedFor } from "../dead-letter-event.ts";
import type { ReceivedEvent } from "../event-bus.ts";
import type { Consumer, Handler } from "./handler.ts";

/** Lets a requeued event through to the group that had failed; the others had it before. */
export function ownGroup({ group }: Consumer, next: Handler<ReceivedEvent>): Handler<ReceivedEvent> {
  return async (event, signal) => {
    const wanted = requeuedFor(event);
    return wanted === undefined || wanted === group ? next(event, signal) : "not-ours";
  };
}
