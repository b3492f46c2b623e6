import { type DescMessage, type Message, toBinary, toJson } from "@bufbuild/protobuf";
import { AppError } from "../errors/app-error.ts";

/** The failure of a message over its limit. Names the limit, never the size. */
export function tooLarge(maxBytes: number): AppError {
  return new AppError("MESSAGE_TOO_LARGE", `the message is larger than ${maxBytes} bytes`, {
    quotas: [
      {
        subject: "message",
        limit: "message_bytes",
        value: BigInt(maxBytes),
        description: "bytes of one message, after inflation",
      },
    ],
  });
}

/** The failure of an answer over its limit: the caller asked for too much at once. */
export function answerTooLarge(maxBytes: number): AppError {
  return new AppError("RESPONSE_TOO_LARGE", `the answer is larger than ${maxBytes} bytes`, {
    quotas: [
      {
        subject: "message",
        limit: "response_bytes",
        value: BigInt(maxBytes),
        description: "bytes of one message of an answer, before compression",
      },
    ],
  });
}

/**
 * Holds a message to what may be sent, before anything encodes it. Nearly all
 * are so small that a look at them is enough; what may be larger is encoded to
 * find out.
 *
 * @throws AppError RESPONSE_TOO_LARGE
 */
export function assertSendable(desc: DescMessage, message: Message, json: boolean, maxBytes: number): void {
  if (leftAfter(message, maxBytes) >= 0) return;
  const bytes = json ? Buffer.byteLength(JSON.stringify(toJson(desc, message))) : toBinary(desc, message).byteLength;
  if (bytes > maxBytes) throw answerTooLarge(maxBytes);
}

/** More than a number, a flag or a time takes in any form, or a field's tag. */
const scalarBytes = 40;
/** A character of a text in JSON at worst: `\u0000`. */
const characterBytes = 6;

/** What is at least left of so many bytes when a value is encoded, in binary or as JSON; negative if it may not fit. */
function leftAfter(value: unknown, bytes: number): number {
  if (typeof value === "string") return bytes - scalarBytes - value.length * characterBytes;
  if (typeof value !== "object" || value === null) return bytes - scalarBytes;
  // As base64.
  if (value instanceof Uint8Array) return bytes - scalarBytes - Math.ceil(value.byteLength / 3) * 4;
  let left = bytes - scalarBytes;
  for (const key in value) {
    left = leftAfter((value as Readonly<Record<string, unknown>>)[key], left - key.length * characterBytes);
    if (left < 0) return left;
  }
  return left;
}
