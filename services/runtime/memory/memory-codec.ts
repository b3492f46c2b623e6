import { create, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { assertSize, decodeMessage, encodeMessage, type MessageCodec } from "../rpc/message-codec.ts";
import { copyMessage, type MessageCopy } from "./message-copy.ts";

/** A message that is handed over within the process. */
export type Handed = HandedCopy | Uint8Array;

interface HandedCopy extends MessageCopy {
  /** What its sender knows it by. */
  readonly schema: DescMessage;
}

/** As a copy, or as bytes where nothing else is surely the same. */
export const memoryCodec: MessageCodec<Handed> = {
  pack(schema, init, maxBytes) {
    const message = create<DescMessage>(schema, init as MessageInitShape<DescMessage>);
    const copy = copyMessage(schema, message);
    if (copy === undefined) return encodeMessage(schema, message, maxBytes);
    assertSize(schema, copy, maxBytes);
    return { ...copy, schema };
  },
  unpack(schema, handed, maxBytes) {
    if (handed instanceof Uint8Array) return decodeMessage(schema, handed, maxBytes);
    // The other side may know the contract from elsewhere, and have less of it.
    if (handed.schema !== schema)
      return decodeMessage(schema, encodeMessage(handed.schema, handed.message, maxBytes), maxBytes);
    assertSize(schema, handed, maxBytes);
    return handed.message;
  },
};
