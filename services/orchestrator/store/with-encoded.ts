import type { DescField, Message } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/**
 * Gives a message fields whose own messages are encoded already. They stand
 * among its `$unknown` fields, which are written as they are, behind the
 * others; whoever decodes it finds fields like any other. To decode and encode
 * what a run holds on to was most of the cost of its first entry.
 */
export function withEncoded<M extends Message>(
  message: M,
  ...fields: readonly (readonly [field: DescField, encoded: Uint8Array])[]
): M {
  message.$unknown = fields.map(([field, encoded]) => ({
    no: field.number,
    wireType: WireType.LengthDelimited,
    data: new BinaryWriter().bytes(encoded).finish(),
  }));
  return message;
}
