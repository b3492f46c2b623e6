import { toRequeuedEvent } from "../../runtime/bus/dead-letter-event.ts";
import type { EventBus } from "../../runtime/bus/event-bus.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { DeadLetter, DeadLetterState, DeadLetterStore, LetterReference } from "../store/dead-letter-store.ts";

export interface CloseDeadLetterDeps {
  readonly letters: DeadLetterStore;
  readonly bus: EventBus;
}

/**
 * Publishes the event again and closes its letter. Of many at once, one
 * publishes. After a crash in between it may be published twice, under the
 * same event id, by which handlers know it.
 *
 * @throws AppError DEAD_LETTER_NOT_FOUND, or DEAD_LETTER_CLOSED if it was discarded
 */
export function requeueDeadLetter(deps: CloseDeadLetterDeps, letter: LetterReference, by: string): Promise<DeadLetter> {
  return close(deps, letter, "requeued", by, (event, { failure }) =>
    deps.bus.publish([toRequeuedEvent(event, failure.group)]),
  );
}

/**
 * Closes a letter for good.
 *
 * @throws AppError DEAD_LETTER_NOT_FOUND, or DEAD_LETTER_CLOSED if it was requeued
 */
export function discardDeadLetter(deps: CloseDeadLetterDeps, letter: LetterReference, by: string): Promise<DeadLetter> {
  return close(deps, letter, "discarded", by, async () => undefined);
}

async function close(
  { letters }: CloseDeadLetterDeps,
  reference: LetterReference,
  state: Exclude<DeadLetterState, "kept">,
  by: string,
  before: Parameters<DeadLetterStore["close"]>[1]["before"],
): Promise<DeadLetter> {
  const letter = await letters.close(reference, { state, by, before });
  if (letter === undefined) throw deadLetterNotFound();
  if (letter.state !== state) {
    throw new AppError("DEAD_LETTER_CLOSED", `the dead letter was ${letter.state} before`);
  }
  return letter;
}

/** The answer for a letter that is not there, or not the caller's. */
export function deadLetterNotFound(): AppError {
  return new AppError("DEAD_LETTER_NOT_FOUND", "there is no such dead letter");
}
