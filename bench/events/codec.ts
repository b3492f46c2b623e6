import { createMutableRegistry } from "@bufbuild/protobuf";
import type { TurnChanged } from "@cadre/gen/cadre/events/v1/turn_pb";
import {
  ProtobufDeserializer,
  ProtobufSerializer,
  SchemaRegistryClient,
  SerdeType,
} from "@confluentinc/schemaregistry";
import { createEventCodec } from "../../services/runtime/bus/envelope.ts";
import type { BusEvent } from "../../services/runtime/bus/event-bus.ts";
import { createLocalSchemaIds } from "../../services/runtime/bus/schema-ids.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { decodeMessage, decodeWire, encodeWire } from "../../services/runtime/bus/wire-codec.ts";
import { type Comparison, formatFigure, median } from "../report.ts";

const peer = "@confluentinc/schemaregistry 1.10.1";
const target = ">= 3";
const rounds = 5;

/**
 * Facts to bytes and back: by Cadre's codec, which also holds each one to the
 * rules of its contract and makes and checks its envelope, and by its wire
 * format alone; beside Confluent's serializer for JavaScript over its registry
 * in memory, which does the wire format. Both know the schema when it begins.
 */
export async function compareCodecs(orgId: string, facts: readonly TurnChanged[]): Promise<readonly Comparison[]> {
  const codec = createEventCodec(createLocalSchemaIds());
  const client = SchemaRegistryClient.newClient({ baseURLs: ["mock://"] });
  const registry = createMutableRegistry(conversationTurns.message);
  const serializer = new ProtobufSerializer(client, SerdeType.VALUE, { autoRegisterSchemas: true, registry });
  const deserializer = new ProtobufDeserializer(client, SerdeType.VALUE, {});
  const { name, message } = conversationTurns;

  const events: BusEvent[] = [];
  const theirFrames: Buffer[] = [];
  for (const fact of facts) {
    events.push(await codec.encode(conversationTurns, fact, { orgId }));
    theirFrames.push(await serializer.serialize(name, fact));
  }
  const ways: Readonly<Record<string, () => Promise<void>>> = {
    encode: async () => {
      for (const fact of facts) await codec.encode(conversationTurns, fact, { orgId });
    },
    "encode, wire format alone": async () => {
      for (const fact of facts) encodeWire(1, message, fact);
    },
    "their encode": async () => {
      for (const fact of facts) await serializer.serialize(name, fact);
    },
    decode: async () => {
      for (const event of events) await codec.decode(conversationTurns, event);
    },
    "decode, wire format alone": async () => {
      for (const { value } of events) decodeMessage(message, decodeWire(value).bytes);
    },
    "their decode": async () => {
      for (const frame of theirFrames) await deserializer.deserialize(name, frame);
    },
  };
  const rates = new Map<string, number[]>();
  for (let round = 0; round <= rounds; round++) {
    for (const [way, work] of Object.entries(ways)) {
      const startedMs = performance.now();
      await work();
      const rate = facts.length / ((performance.now() - startedMs) / 1_000);
      // The first round warms up.
      if (round > 0) rates.set(way, [...(rates.get(way) ?? []), rate]);
    }
  }
  const rateOf = (way: string): number => median(rates.get(way) ?? []);
  for (const way of Object.keys(ways)) process.stderr.write(`${way}: ${formatFigure(rateOf(way))}/s\n`);
  return ["encode", "encode, wire format alone", "decode", "decode, wire format alone"].map((way) => ({
    bench: "events",
    what: `${way}, events/s`,
    ours: rateOf(way),
    peer,
    theirs: rateOf(way.startsWith("encode") ? "their encode" : "their decode"),
    target,
  }));
}
