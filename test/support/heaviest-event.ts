import { BinaryWriter } from "@bufbuild/protobuf/wire";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import { maxEventBytes } from "../../services/runtime/bus/fact-rules.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { codec, turnFact } from "./turn-facts.ts";

/** An event that is as heavy as one may be. */
export interface HeaviestEvent {
  /** It weighs exactly `maxEventBytes`. */
  readonly event: BusEvent;
  /** Encodes the same fact with one byte more. */
  encodeHeavier(): Promise<BusEvent>;
}

/** Makes one by padding a turn's fact with bytes that its contract does not know. */
export async function makeHeaviestEvent(orgId = newId("org")): Promise<HeaviestEvent> {
  const sessionId = newId("ses");
  const encode = (padding: number) => {
    const data = new BinaryWriter().bytes(new Uint8Array(padding)).finish();
    const fact = Object.assign(turnFact(orgId, sessionId, 1), { $unknown: [{ no: 999, wireType: 2, data }] });
    return codec.encode(conversationTurns, fact, { orgId });
  };
  const near = maxEventBytes - 1_000;
  const most = near + maxEventBytes - weigh(await encode(near));
  const event = await encode(most);
  if (weigh(event) !== maxEventBytes) throw new Error(`it weighs ${weigh(event)} bytes`);
  return { event, encodeHeavier: () => encode(most + 1) };
}

function weigh({ key, headers, value }: BusEvent): number {
  return value.byteLength + Buffer.byteLength(key + Object.entries(headers).flat().join(""));
}
