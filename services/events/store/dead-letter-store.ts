import type { DeadLetterEvent, DeadLetterFailure } from "../../runtime/bus/dead-letter-event.ts";
import type { BusEvent } from "../../runtime/bus/event-bus.ts";

/** What became of a dead letter. */
export type DeadLetterState = "kept" | "requeued" | "discarded";

/** A dead letter, without the event that it holds. */
export interface DeadLetter {
  readonly deadLetterId: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly failure: DeadLetterFailure;
  readonly eventId: string;
  readonly eventType: string;
  /** Bytes of the event's value. */
  readonly size: number;
  readonly sha256: Uint8Array;
  readonly state: DeadLetterState;
  /** Undefined while it is kept. */
  readonly closedAt: Date | undefined;
  readonly closedBy: string;
}

/** A dead letter with its event. */
export interface FullDeadLetter {
  readonly letter: DeadLetter;
  readonly event: BusEvent;
}

/** Narrows a list; empty texts and an undefined state do not. */
export interface DeadLetterFilter {
  readonly topic: string;
  readonly group: string;
  readonly state: DeadLetterState | undefined;
}

/** A letter of an org, or one whose org cannot be told, if those may be seen as well. */
export interface LetterReference {
  /** UUIDs of the orgs to look in, in this order. */
  readonly orgIds: readonly string[];
  /** The letter's UUID. */
  readonly deadLetterId: string;
}

/** The org of letters whose org cannot be told: no org has this UUID. */
export const noOrg = "00000000-0000-0000-0000-000000000000";

/** Dead letters by org. Each method is one transaction for each org that it looks in, bound to that org. */
export interface DeadLetterStore {
  /** Keeps a dead letter; false if it was kept before. Sees all orgs. */
  keep(orgId: string, letter: DeadLetterEvent): Promise<boolean>;
  /** Newest first, from before `before`, a letter's UUID; undefined for the newest. */
  list(
    orgId: string,
    filter: DeadLetterFilter,
    before: string | undefined,
    limit: number,
  ): Promise<readonly DeadLetter[]>;
  /** Undefined if there is none. */
  find(reference: LetterReference): Promise<FullDeadLetter | undefined>;
  /**
   * Closes a letter. Holds its row while `before` works, and rolls back if that
   * throws, so that of several at once one does the work and the others see
   * what became of it. `before` is not called for a letter that is closed.
   *
   * @returns the letter as it is afterwards; undefined if there is none
   */
  close(reference: LetterReference, closing: Closing): Promise<DeadLetter | undefined>;
  /** Removes at most `limit` letters that are older, whatever their state; returns how many. Sees all orgs. */
  prune(retentionDays: number, limit: number): Promise<number>;
}

/** How a letter is closed. */
export interface Closing {
  readonly state: Exclude<DeadLetterState, "kept">;
  readonly by: string;
  /** What must be done first; may be done again after a crash. */
  readonly before: (event: BusEvent, letter: DeadLetter) => Promise<void>;
}
