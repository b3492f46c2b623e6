import type { MessageShape } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { AppError } from "../errors/app-error.ts";
import type { BusEvent } from "./event-bus.ts";
import type { SchemaIds } from "./schema-ids.ts";
import { type Fact, subjectOf, type Topic } from "./topics.ts";
import { decodeMessage, decodeWire, encodeWire, messageAt, messageIndexesOf } from "./wire-codec.ts";

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

/** Makes envelopes of facts, and facts of envelopes. */
export interface EventCodec {
  /**
   * @param traceparent the W3C trace context to continue; empty for none
   * @throws TypeError if the fact has no metadata: a bug of who states it
   */
  encode<M extends Fact>(topic: Topic<M>, fact: M, traceparent?: string): Promise<BusEvent>;
  /**
   * @throws AppError MALFORMED_MESSAGE if the event holds no fact of the topic
   * @throws AppError TENANT_MISMATCH if envelope, key and fact name different orgs
   */
  decode<M extends Fact>(topic: Topic<M>, event: BusEvent): Promise<M>;
}

export function createEventCodec(schemaIds: SchemaIds): EventCodec {
  return {
    async encode(topic, fact, traceparent = "") {
      const { metadata } = fact;
      if (metadata === undefined) throw new TypeError(`${topic.message.typeName} without metadata`);
      const schemaId = await schemaIds.idOf(subjectOf(topic), topic.message.file);
      const headers: Record<string, string> = {
        [envelopeHeader.eventId]: metadata.eventId,
        [envelopeHeader.eventType]: topic.message.typeName,
        [envelopeHeader.orgId]: metadata.orgId,
        [envelopeHeader.contentType]: eventContentType,
        [envelopeHeader.schemaId]: String(schemaId),
      };
      if (traceparent !== "") headers[envelopeHeader.traceparent] = traceparent;
      if (metadata.requestId !== "") headers[envelopeHeader.requestId] = metadata.requestId;
      return {
        topic: topic.name,
        key: `${metadata.orgId}:${topic.objectId(fact)}`,
        headers,
        value: encodeWire(schemaId, topic.message, fact as MessageShape<typeof topic.message>),
      };
    },

    async decode<M extends Fact>(topic: Topic<M>, event: BusEvent): Promise<M> {
      const { schemaId, messageIndexes, bytes } = decodeWire(event.value);
      const message = topic.message as GenMessage<M>;
      const file = await schemaIds.fileOf(schemaId);
      // A schema of another build: a topic has one message type for good, and the contract's checks keep its place.
      const type =
        file === undefined
          ? isSame(messageIndexes, messageIndexesOf(message))
            ? event.headers[envelopeHeader.eventType]
            : undefined
          : messageAt(file, messageIndexes)?.typeName;
      if (type !== message.typeName) {
        throw new AppError("MALFORMED_MESSAGE", `the event is malformed: no ${message.typeName}`);
      }
      const fact = decodeMessage(message, bytes) as M;
      const orgId = fact.metadata?.orgId;
      if (orgId === undefined || orgId !== event.headers[envelopeHeader.orgId] || !event.key.startsWith(`${orgId}:`)) {
        throw new AppError("TENANT_MISMATCH", "the event's envelope, key and fact name different orgs");
      }
      return fact;
    },
  };
}

/** The fact's id; handlers know a repetition by it. */
export function eventIdOf(event: BusEvent): string {
  return event.headers[envelopeHeader.eventId] ?? "";
}

function isSame(left: readonly number[], right: readonly number[]): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}
