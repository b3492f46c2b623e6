/**
 * Dead letters on their way: the event as it came, on the topic
 * `<topic>.dlt`, with what is known of its failure in headers of their own.
 * Its other headers and its value are not touched.
 */
import type { FailureReason } from "../errors/app-error.ts";
import { isFailureReason } from "../errors/failure.ts";
import { redactText } from "../log/redact.ts";
import type { BusEvent, ReceivedEvent } from "./event-bus.ts";
import { deadLetterTopicOf } from "./topics.ts";

const header = {
  topic: "cadre-dead-letter-topic",
  partition: "cadre-dead-letter-partition",
  offset: "cadre-dead-letter-offset",
  group: "cadre-dead-letter-group",
  attempts: "cadre-dead-letter-attempts",
  reason: "cadre-dead-letter-reason",
  message: "cadre-dead-letter-message",
  failedAt: "cadre-dead-letter-failed-at",
} as const;

const requeuedForHeader = "cadre-requeued-for";
const maxMessageLength = 1_024;

/** Why no attempt was left for an event. */
export interface DeadLetterFailure {
  /** The consumer group whose handler failed. */
  readonly group: string;
  readonly attempts: number;
  readonly reason: FailureReason;
  /** At most 1,024 characters; what looks like a credential is masked. */
  readonly message: string;
  readonly failedAt: Date;
}

/** A dead letter, read back. */
export interface DeadLetterEvent {
  /** The event as it came to the handler. */
  readonly event: BusEvent;
  /** Where it came from. */
  readonly partition: number;
  readonly offset: bigint;
  readonly failure: DeadLetterFailure;
}

/** Makes the event that goes to the dead-letter topic. */
export function toDeadLetterEvent(event: ReceivedEvent, failure: DeadLetterFailure): BusEvent {
  return {
    topic: deadLetterTopicOf(event.topic),
    key: event.key,
    headers: {
      ...event.headers,
      [header.topic]: event.topic,
      [header.partition]: String(event.partition),
      [header.offset]: String(event.offset),
      [header.group]: failure.group,
      [header.attempts]: String(failure.attempts),
      [header.reason]: failure.reason,
      [header.message]: redactText(failure.message).slice(0, maxMessageLength),
      [header.failedAt]: failure.failedAt.toISOString(),
    },
    value: event.value,
  };
}

/**
 * Reads what `toDeadLetterEvent` made. What others put on a dead-letter topic
 * is read as well: as an event of that topic's own place that failed for
 * reasons unknown.
 */
export function fromDeadLetterEvent(received: ReceivedEvent): DeadLetterEvent {
  const { key, value } = received;
  const own: ReadonlySet<string> = new Set(Object.values(header));
  const headers = Object.fromEntries(Object.entries(received.headers).filter(([name]) => !own.has(name)));
  const said = (name: keyof typeof header): string => received.headers[header[name]] ?? "";
  const topic = received.topic.slice(0, -deadLetterTopicOf("").length);
  const isOurs = said("topic") === topic && /^\d{1,9}$/.test(said("partition")) && /^\d{1,18}$/.test(said("offset"));
  const failedAt = new Date(said("failedAt"));
  const reason = said("reason");
  return {
    event: { topic, key, headers, value },
    partition: isOurs ? Number(said("partition")) : received.partition,
    offset: isOurs ? BigInt(said("offset")) : received.offset,
    failure: {
      group: isOurs ? said("group") : "",
      attempts: isOurs ? Number(said("attempts")) || 0 : 0,
      reason: isFailureReason(reason) ? reason : "INTERNAL",
      message: said("message"),
      failedAt: Number.isNaN(failedAt.getTime()) ? received.publishedAt : failedAt,
    },
  };
}

/** The event of a dead letter as it is published again, for the group that had failed alone. */
export function toRequeuedEvent(event: BusEvent, group: string): BusEvent {
  return group === "" ? event : { ...event, headers: { ...event.headers, [requeuedForHeader]: group } };
}

/** The group that a requeued event is for; `undefined` if it is for all. */
export function requeuedFor({ headers }: BusEvent): string | undefined {
  return headers[requeuedForHeader];
}
