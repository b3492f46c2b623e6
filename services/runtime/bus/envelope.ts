import type { MessageShape } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import type { Meter } from "@opentelemetry/api";
import { AppError } from "../errors/app-error.ts";
import { isId } from "../ids/id.ts";
import { parseTraceparent } from "../telemetry/traceparent.ts";
import type { BusEvent } from "./event-bus.ts";
import { assertFact, maxEventBytes } from "./fact-rules.ts";
import type { SchemaIds } from "./schema-ids.ts";
import { type Fact, subjectOf, type Topic } from "./topics.ts";
import { decodeMessage, decodeWire, encodeWire, messageAt, messageIndexesOf, type WireMessage } from "./wire-codec.ts";

/** The names of the envelope's fields, which travel as headers beside the bytes. */
export const envelopeHeader = {
  /** The fact's id, `evt_…`. */
  eventId: "cadre-event-id",
  /** The full name of the message, for example `cadre.events.v1.TurnChanged`. */
  eventType: "cadre-event-type",
  orgId: "cadre-org-id",
  /** W3C trace context of what stated the fact. Absent without tracing. */
  traceparent: "traceparent",
  /** Absent if no request caused it. */
  requestId: "cadre-request-id",
  /** Always `application/vnd.confluent.protobuf`. */
  contentType: "content-type",
  schemaId: "cadre-schema-id",
} as const;

export const eventContentType = "application/vnd.confluent.protobuf";

/** What a fact comes from. */
export interface FactOrigin {
  /** The org whose state it tells of, as that state says: the fact must name the same. */
  readonly orgId: string;
  /** The W3C trace context to continue; one that is malformed counts as none. */
  readonly traceparent?: string;
}

/** Makes envelopes of facts, and facts of envelopes. */
export interface EventCodec {
  /**
   * Checks a fact and makes an event of it. Whoever keeps an outbox encodes
   * before it stores, so that nothing invalid is ever in it.
   *
   * @throws AppError as `assertFact`
   * @throws AppError SCHEMA_NOT_REGISTERED if the message is not registered for the topic
   * @throws AppError MESSAGE_TOO_LARGE if the event weighs more than 1,000,000 bytes
   */
  encode<M extends Fact>(topic: Topic<M>, fact: M, origin: FactOrigin): Promise<BusEvent>;
  /**
   * @throws AppError MALFORMED_MESSAGE if the bytes are no message
   * @throws AppError SCHEMA_UNKNOWN if nobody knows the schema id
   * @throws AppError SCHEMA_MISMATCH if it is another message than the topic's
   * @throws AppError TENANT_MISMATCH if envelope, key and fact name different orgs
   * @throws AppError UNAVAILABLE if the registry cannot be asked now
   */
  decode<M extends Fact>(topic: Topic<M>, event: BusEvent): Promise<M>;
}

export interface EventCodecOptions {
  /** Where refused facts are counted: `cadre.events.refused`, by topic and reason. */
  readonly meter?: Meter;
  /**
   * Whether `schemaIds` knows every id that there is, as a registry does. If
   * not, an id of another build is taken for what the envelope says: a topic
   * has one message type for good, and the contract's checks keep its place.
   * Default: false.
   */
  readonly knowsAllIds?: boolean;
}

export function createEventCodec(schemaIds: SchemaIds, options: EventCodecOptions = {}): EventCodec {
  const { meter, knowsAllIds = false } = options;
  const refused = meter?.createCounter("cadre.events.refused", { description: "Facts that no event was made of." });

  async function toEvent<M extends Fact>(topic: Topic<M>, fact: M, origin: FactOrigin): Promise<BusEvent> {
    assertFact(topic, fact, origin.orgId);
    const { orgId, traceparent = "" } = origin;
    const schemaId = await schemaIds.idOf(subjectOf(topic), topic.message.file);
    const headers: Record<string, string> = {
      [envelopeHeader.eventId]: fact.metadata?.eventId ?? "",
      [envelopeHeader.eventType]: topic.message.typeName,
      [envelopeHeader.orgId]: orgId,
      [envelopeHeader.contentType]: eventContentType,
      [envelopeHeader.schemaId]: String(schemaId),
    };
    if (parseTraceparent(traceparent) !== undefined) headers[envelopeHeader.traceparent] = traceparent;
    const requestId = fact.metadata?.requestId ?? "";
    if (requestId !== "") headers[envelopeHeader.requestId] = requestId;
    const key = `${orgId}:${topic.objectId(fact)}`;
    const value = encodeWire(schemaId, topic.message, fact as MessageShape<typeof topic.message>);
    const event: BusEvent = { topic: topic.name, key, headers, value };
    const bytes = weightOf(event);
    if (bytes > maxEventBytes) {
      const message = `the event of ${topic.name} weighs ${bytes} bytes; at most ${maxEventBytes} may be published`;
      throw new AppError("MESSAGE_TOO_LARGE", message);
    }
    return event;
  }

  async function typeNameOf(topic: Topic, event: BusEvent, wire: WireMessage): Promise<string | undefined> {
    const file = await schemaIds.fileOf(wire.schemaId);
    if (file !== undefined) return messageAt(file, wire.messageIndexes)?.typeName;
    // An envelope that speaks of another id than the frame belongs to other bytes.
    if (knowsAllIds || event.headers[envelopeHeader.schemaId] !== String(wire.schemaId)) {
      throw new AppError("SCHEMA_UNKNOWN", `the event on ${topic.name} names the unknown schema id ${wire.schemaId}`);
    }
    const isInPlace = isSame(wire.messageIndexes, messageIndexesOf(topic.message));
    return isInPlace ? event.headers[envelopeHeader.eventType] : undefined;
  }

  return {
    async encode(topic, fact, origin) {
      try {
        return await toEvent(topic, fact, origin);
      } catch (thrown) {
        refused?.add(1, { topic: topic.name, reason: thrown instanceof AppError ? thrown.reason : "INTERNAL" });
        throw thrown;
      }
    },

    async decode<M extends Fact>(topic: Topic<M>, event: BusEvent): Promise<M> {
      const wire = decodeWire(event.value);
      const message = topic.message as GenMessage<M>;
      if ((await typeNameOf(topic as unknown as Topic, event, wire)) !== message.typeName) {
        throw new AppError("SCHEMA_MISMATCH", `the event on ${topic.name} is no ${message.typeName}`);
      }
      const fact = decodeMessage(message, wire.bytes) as M;
      const { orgId = "", eventId = "" } = fact.metadata ?? {};
      if (orgId === "" || orgId !== event.headers[envelopeHeader.orgId] || !event.key.startsWith(`${orgId}:`)) {
        throw new AppError("TENANT_MISMATCH", "the event's envelope, key and fact name different orgs");
      }
      if (!isId("evt", eventId) || eventId !== eventIdOf(event)) {
        throw new AppError("MALFORMED_MESSAGE", "the event is malformed: envelope and fact name different events");
      }
      return fact;
    },
  };
}

/** The fact's id; handlers know a repetition by it. */
export function eventIdOf(event: BusEvent): string {
  return event.headers[envelopeHeader.eventId] ?? "";
}

function weightOf({ key, headers, value }: BusEvent): number {
  let bytes = value.byteLength + Buffer.byteLength(key);
  for (const [name, text] of Object.entries(headers)) bytes += Buffer.byteLength(name) + Buffer.byteLength(text);
  return bytes;
}

function isSame(left: readonly number[], right: readonly number[]): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}
