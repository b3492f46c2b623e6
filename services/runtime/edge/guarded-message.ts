import type { DescMethod } from "@bufbuild/protobuf";
import { AppError } from "../errors/app-error.ts";
import { type BodyPace, bodyChunks, readBody } from "./body.ts";
import type { ByteLease } from "./byte-budget.ts";
import type { CallProtocol } from "./call-protocol.ts";
import { decompress, type Encoding } from "./compression.ts";
import type { EdgeIncoming } from "./edge-request.ts";
import { assertJsonMessage } from "./json-message.ts";
import { tooLarge } from "./message-size.ts";
import { assertMessageWithinLimits } from "./wire-limits.ts";

/** What the messages of a call are held to. */
export interface MessageGuard {
  readonly method: DescMethod;
  readonly protocol: CallProtocol;
  readonly encoding: Encoding | undefined;
  readonly maxBytes: number;
  readonly lease: ByteLease;
  readonly pace: BodyPace;
}

const compressedFlag = 1;
const envelopeBytes = 5;

/**
 * The body of a call as the adapter may see it: inflated, each message within
 * its limits and known to be of the method's type, in the framing of its
 * protocol. Whatever is wrong with it is thrown where the adapter reads it, so
 * that the adapter answers in the protocol's own form.
 */
export async function* guardedBody(
  request: EdgeIncoming,
  guard: MessageGuard,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (!guard.protocol.enveloped) {
    const bytes = await readBody(request, guard, signal);
    yield await openMessage(bytes, guard.encoding !== undefined, guard);
    return;
  }
  const single = guard.method.methodKind === "unary" || guard.method.methodKind === "server_streaming";
  let messages = 0;
  for await (const { compressed, data } of envelopes(bodyChunks(request, guard.pace, signal), guard)) {
    messages += 1;
    if (single && messages > 1) throw new AppError("UNIMPLEMENTED", "the method takes one message, and got more");
    const message = await openMessage(data, compressed, guard);
    const head = new Uint8Array(envelopeBytes);
    new DataView(head.buffer).setUint32(1, message.byteLength);
    yield head;
    yield message;
    // The message is the handler's by now; what the stream brings next is counted afresh.
    if (!single) guard.lease.giveBack();
  }
  if (single && messages === 0) throw new AppError("UNIMPLEMENTED", "the method takes one message, and got none");
}

/** Inflates a message and checks it. */
export async function openMessage(bytes: Uint8Array, compressed: boolean, guard: MessageGuard): Promise<Uint8Array> {
  let message = bytes;
  if (compressed) {
    if (guard.encoding === undefined) {
      throw new AppError("MALFORMED_MESSAGE", "a message is marked as compressed, but no encoding is named");
    }
    message = await decompress(bytes, guard.encoding, guard.maxBytes);
    guard.lease.take(message.byteLength);
  }
  if (guard.protocol.json) assertJsonMessage(guard.method.input, message);
  else assertMessageWithinLimits(guard.method.input, message);
  return message;
}

/** Splits a body into envelopes: a byte of flags, four of length, the message. */
async function* envelopes(
  chunks: AsyncIterable<Buffer>,
  { maxBytes, lease }: MessageGuard,
): AsyncGenerator<{ readonly compressed: boolean; readonly data: Buffer }> {
  let parts: Buffer[] = [];
  let buffered = 0;
  let wanted = envelopeBytes;
  let compressed: boolean | undefined;
  for await (const chunk of chunks) {
    lease.take(chunk.byteLength);
    parts.push(chunk);
    buffered += chunk.byteLength;
    while (buffered >= wanted) {
      const whole = parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts, buffered);
      const data = whole.subarray(0, wanted);
      parts = [whole.subarray(wanted)];
      buffered -= wanted;
      if (compressed === undefined) {
        const flags = data.readUInt8(0);
        if (flags > compressedFlag) throw new AppError("MALFORMED_MESSAGE", "an envelope has unknown flags");
        compressed = flags === compressedFlag;
        wanted = data.readUInt32BE(1);
        if (wanted > maxBytes) throw tooLarge(maxBytes);
      } else {
        yield { compressed, data };
        compressed = undefined;
        wanted = envelopeBytes;
      }
    }
  }
  if (buffered > 0 || compressed !== undefined) throw new AppError("MALFORMED_MESSAGE", "an envelope is cut off");
}
