import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import { createLocalSchemaIds } from "../../services/runtime/bus/schema-ids.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";

/** The codec of a process without a registry. */
export const codec = createEventCodec(createLocalSchemaIds());

/** A fact of a turn as somebody could have stated it; `seq` tells facts of a session apart. */
export function turnFact(orgId: string, sessionId: string, seq: number): TurnChanged {
  return create(TurnChangedSchema, {
    metadata: { eventId: newId("evt"), seq: BigInt(seq), at: timestampFromMs(1_700_000_000_000), orgId },
    sessionId,
    turnId: newId("run"),
    change: TurnChange.STARTED,
  });
}

/** The event of such a fact. */
export function turnEvent(orgId: string, sessionId: string, seq: number, traceparent = ""): Promise<BusEvent> {
  return codec.encode(conversationTurns, turnFact(orgId, sessionId, seq), { orgId, traceparent });
}
