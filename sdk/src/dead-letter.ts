import {
  type DeadLetter,
  DeadLetterService,
  DeadLetterState,
  type GetDeadLetterResponse,
} from "@cadre/gen/cadre/events/v1/dead_letter_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";
import { createListing, type Listing, type PageOptions } from "./page.ts";

/** Which dead letters to list. */
export interface DeadLetterFilterOptions extends PageOptions {
  /** Only those of this topic. */
  readonly topic?: string;
  /** Only those of this consumer group. */
  readonly group?: string;
  /** Only those in this state. */
  readonly state?: "kept" | "requeued" | "discarded";
  /** Instead of the org's: those whose org cannot be told. Wants an operator of the installation. */
  readonly unattributed?: boolean;
}

/** Events that a consumer could not handle. Reading wants the role `developer`, changing `admin`. */
export interface DeadLetters {
  /** Lists the org's dead letters, newest first. */
  list(options?: DeadLetterFilterOptions): Listing<DeadLetter>;
  /** Returns a dead letter with its event, sensitive values masked. @throws CadreError `DEAD_LETTER_NOT_FOUND` */
  get(deadLetterId: string, options?: CallOptions): Promise<GetDeadLetterResponse>;
  /**
   * Puts the event back on its topic for the group that had failed. Done once:
   * again, it only says what became of it.
   *
   * @throws CadreError `DEAD_LETTER_NOT_FOUND`, or `DEAD_LETTER_CLOSED` if it was discarded
   */
  requeue(deadLetterId: string, options?: CallOptions): Promise<DeadLetter>;
  /**
   * Closes a dead letter for good.
   *
   * @throws CadreError `DEAD_LETTER_NOT_FOUND`, or `DEAD_LETTER_CLOSED` if it was requeued
   */
  discard(deadLetterId: string, options?: CallOptions): Promise<DeadLetter>;
}

const stateNumber = {
  kept: DeadLetterState.KEPT,
  requeued: DeadLetterState.REQUEUED,
  discarded: DeadLetterState.DISCARDED,
} as const;

/** Creates the dead letters of a client. */
export function createDeadLetters(caller: Caller): DeadLetters {
  const { method } = DeadLetterService;
  return {
    list(options = {}) {
      const { topic = "", group = "", state, unattributed = false, pageSize = 0, signal } = options;
      return createListing(options, async (pageToken) => {
        const request = {
          pageSize,
          pageToken,
          topic,
          group,
          state: state === undefined ? DeadLetterState.UNSPECIFIED : stateNumber[state],
          unattributed,
        };
        const response = await caller.unary(method.listDeadLetters, request, { signal });
        return { items: response.deadLetters, nextPageToken: response.nextPageToken };
      });
    },
    get: (deadLetterId, options) => caller.unary(method.getDeadLetter, { deadLetterId }, options),
    async requeue(deadLetterId, options) {
      const { deadLetter } = await caller.unary(method.requeueDeadLetter, { deadLetterId }, options);
      return required(deadLetter, "the dead letter");
    },
    async discard(deadLetterId, options) {
      const { deadLetter } = await caller.unary(method.discardDeadLetter, { deadLetterId }, options);
      return required(deadLetter, "the dead letter");
    },
  };
}
