import { type BodyPace, readBody } from "../../runtime/edge/body.ts";
import type { ByteLease } from "../../runtime/edge/byte-budget.ts";
import type { EdgeIncoming } from "../../runtime/edge/edge-request.ts";

export interface ReadSmallBodyLimits {
  readonly maxBytes: number;
  readonly lease: ByteLease;
  readonly pace: BodyPace;
}

/** A body up to here usually comes in the same packet as its header. */
const smallBytes = 16 * 1024;

/**
 * Reads a whole body as `readBody` does. One that came together with its
 * header is taken at once, without timers and listeners to wait for more.
 *
 * @throws what `readBody` throws
 */
export async function readSmallBody(
  request: EdgeIncoming,
  limits: ReadSmallBodyLimits,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const length = Number(request.headers["content-length"] ?? Number.NaN);
  if (length > 0 && length <= smallBytes) {
    // The parser hands over what else is in the packet when its caller returns.
    await Promise.resolve();
    const chunk: Buffer | null = request.read();
    if (chunk?.byteLength === length) {
      limits.lease.take(length);
      request.resume(); // to its end, which is next
      return chunk;
    }
    if (chunk !== null) request.unshift(chunk);
  }
  return readBody(request, limits, signal);
}
