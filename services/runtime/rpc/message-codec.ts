import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { AppError } from "../errors/app-error.ts";

/** How large a message may be, encoded, sent and received alike. */
export interface MessageLimits {
  /** Request and response of a unary method, in bytes. Default 4 MiB. */
  readonly unaryMaxBytes: number;
  /** Each message of a streaming method, in bytes. Default 1 MiB. */
  readonly streamMaxBytes: number;
}

export const defaultMessageLimits: MessageLimits = { unaryMaxBytes: 4 * 1024 * 1024, streamMaxBytes: 1024 * 1024 };

/** The limit that holds for the messages of a method. */
export function maxBytesOf(limits: MessageLimits, method: { readonly methodKind: string }): number {
  return method.methodKind === "unary" ? limits.unaryMaxBytes : limits.streamMaxBytes;
}

/** A message on its way between the two sides of a call. */
export interface Packed {
  /** How many bytes it has, encoded. */
  readonly byteLength: number;
}

/** How messages get from one side of a call to the other, which has the same. */
export interface MessageCodec<P extends Packed> {
  /** @throws AppError MESSAGE_TOO_LARGE past the limit */
  pack(schema: DescMessage, message: Message, maxBytes: number): P;
  /** @throws AppError MESSAGE_TOO_LARGE past the limit, MALFORMED_MESSAGE if it is no such message */
  unpack(schema: DescMessage, packed: P, maxBytes: number): Message;
}

/** As bytes. */
export const bytesCodec: MessageCodec<Uint8Array> = { pack: encodeMessage, unpack: decodeMessage };

/**
 * Encodes a message.
 *
 * @throws AppError MESSAGE_TOO_LARGE past the limit
 */
export function encodeMessage<D extends DescMessage>(
  schema: D,
  message: MessageShape<D> | MessageInitShape<D>,
  maxBytes: number,
): Uint8Array {
  const bytes = toBinary<DescMessage>(schema, create<DescMessage>(schema, message as MessageInitShape<DescMessage>));
  assertSize(schema, bytes, maxBytes);
  return bytes;
}

/**
 * Decodes a message. Its fields of type bytes share memory with the input.
 *
 * @throws AppError MESSAGE_TOO_LARGE past the limit, MALFORMED_MESSAGE if the bytes are none of that message
 */
export function decodeMessage(schema: DescMessage, bytes: Uint8Array, maxBytes: number): Message {
  assertSize(schema, bytes, maxBytes);
  try {
    return fromBinary(schema, plain(bytes));
  } catch (cause) {
    throw new AppError("MALFORMED_MESSAGE", `the bytes are no ${schema.typeName}`, { cause });
  }
}

/** A Buffer would make every bytes field a Buffer, too. */
function plain(bytes: Uint8Array): Uint8Array {
  return bytes instanceof Buffer ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : bytes;
}

/** Throws AppError MESSAGE_TOO_LARGE past the limit. */
export function assertSize(schema: DescMessage, { byteLength }: Packed, maxBytes: number): void {
  if (byteLength <= maxBytes) return;
  throw new AppError("MESSAGE_TOO_LARGE", `a ${schema.typeName} may have at most ${maxBytes} bytes`, {
    metadata: { max_bytes: String(maxBytes) },
  });
}
