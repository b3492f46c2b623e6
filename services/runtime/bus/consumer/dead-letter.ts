import { AppError } from "../../errors/app-error.ts";
import { toAppError } from "../../errors/failure.ts";
import type { Logger } from "../../log/log.ts";
import { toDeadLetterEvent } from "../dead-letter-event.ts";
import type { EventBus, ReceivedEvent } from "../event-bus.ts";
import { UndecodableError } from "./decode.ts";
import type { Consumer, Handler } from "./handler.ts";
import { AttemptsFailedError } from "./retry.ts";

/**
 * Puts an event aside for which no attempt is left: it goes to the topic's
 * dead-letter topic as it came, with why, and is acknowledged once it is durable
 * there. So one bad event holds up its partition for the time of its attempts.
 *
 * What the handler needs and cannot reach (UNAVAILABLE) is not the event's
 * fault, and the next one would fare no better: the event is refused, comes
 * again, and its partition waits.
 */
export function deadLetter(
  { group }: Consumer,
  deps: { readonly bus: EventBus; readonly log: Logger },
  next: Handler<ReceivedEvent>,
): Handler<ReceivedEvent> {
  return async (event, signal) => {
    try {
      return await next(event, signal);
    } catch (thrown) {
      if (signal.aborted || !(thrown instanceof AttemptsFailedError)) throw thrown;
      const { attempts, cause } = thrown;
      if (cause instanceof AppError && waits.has(cause.reason)) throw cause;
      const failure = toAppError(cause instanceof UndecodableError ? cause.cause : cause);
      const { reason, message } = failure;
      await deps.bus.publish([toDeadLetterEvent(event, { group, attempts, reason, message, failedAt: new Date() })]);
      const { topic, partition, offset } = event;
      deps.log.warn({ err: cause, topic, partition, offset, group, attempts }, "an event is a dead letter now");
      return "dead-lettered";
    }
  };
}

const waits: ReadonlySet<string> = new Set(["UNAVAILABLE", "SHUTTING_DOWN"]);
