import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  DeadLetterSchema,
  type DeadLetter as ProtoDeadLetter,
  DeadLetterState as State,
} from "@cadre/gen/cadre/events/v1/dead_letter_pb";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { DeadLetter, DeadLetterState } from "../store/dead-letter-store.ts";

const stateNumbers = { kept: State.KEPT, requeued: State.REQUEUED, discarded: State.DISCARDED } as const;

const states: Readonly<Record<State, DeadLetterState | undefined>> = {
  [State.UNSPECIFIED]: undefined,
  [State.KEPT]: "kept",
  [State.REQUEUED]: "requeued",
  [State.DISCARDED]: "discarded",
};

/** The state of a filter; undefined for any. */
export function toState(state: State): DeadLetterState | undefined {
  return states[state];
}

/** The contract's form of a dead letter. */
export function fromLetter(letter: DeadLetter): ProtoDeadLetter {
  const { failure, closedAt } = letter;
  const init: MessageInitShape<typeof DeadLetterSchema> = {
    deadLetterId: fromUuid("dlt", letter.deadLetterId),
    topic: letter.topic,
    partition: letter.partition,
    offset: letter.offset,
    group: failure.group,
    attempts: failure.attempts,
    reason: reasonNumber(failure.reason),
    message: failure.message,
    state: stateNumbers[letter.state],
    eventId: letter.eventId,
    eventType: letter.eventType,
    size: letter.size,
    sha256: Buffer.from(letter.sha256).toString("hex"),
    failedAt: timestampFromDate(failure.failedAt),
    closedBy: letter.closedBy,
  };
  return create(DeadLetterSchema, closedAt === undefined ? init : { ...init, closedAt: timestampFromDate(closedAt) });
}
