import { AppError } from "../errors/app-error.ts";
import type { ByteLease } from "./byte-budget.ts";
import { type EdgeLimits, edgeLimits } from "./edge-limits.ts";
import type { EdgeIncoming } from "./edge-request.ts";
import { tooLarge } from "./message-size.ts";

/** How a body may come. */
export type BodyPace = Pick<EdgeLimits, "bodyGraceMs" | "minBodyBytesPerSecond">;

export interface ReadBodyLimits {
  readonly maxBytes: number;
  /** Takes each byte that arrives; whoever made the lease releases it. */
  readonly lease: ByteLease;
  /** The defaults of `edgeLimits` if left out. */
  readonly pace?: BodyPace;
}

/**
 * Reads a whole body.
 *
 * @throws AppError MESSAGE_TOO_LARGE (at once where the length was announced), OVERLOADED,
 * DEADLINE_EXCEEDED for one that comes too slowly, CANCELLED if the caller went away
 */
export async function readBody(
  request: EdgeIncoming,
  { maxBytes, lease, pace = edgeLimits }: ReadBodyLimits,
  signal: AbortSignal,
): Promise<Buffer> {
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge(maxBytes);
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of bodyChunks(request, pace, signal)) {
    length += chunk.byteLength;
    if (length > maxBytes) throw tooLarge(maxBytes);
    lease.take(chunk.byteLength);
    chunks.push(chunk);
  }
  return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks, length);
}

/**
 * The chunks of a body as they come. Ends with DEADLINE_EXCEEDED if they come
 * too slowly, with CANCELLED if the caller goes away. Time that the consumer
 * takes does not count. What is not read is left to the server, which drops it.
 */
export async function* bodyChunks(request: EdgeIncoming, pace: BodyPace, signal: AbortSignal): AsyncGenerator<Buffer> {
  const clock = paceClock(pace);
  let wake: () => void = () => {};
  let failure: AppError | undefined;
  const fail = (error: AppError) => {
    failure ??= error;
    wake();
  };
  const onReadable = () => wake();
  const onCut = () => fail(new AppError("CANCELLED", "the caller went away"));
  signal.addEventListener("abort", onCut, { once: true });
  request.on("readable", onReadable);
  request.once("end", onReadable);
  request.once("aborted", onCut);
  request.once("error", onCut);
  try {
    for (;;) {
      const chunk: Buffer | null = request.read();
      if (chunk !== null) {
        clock.received(chunk.byteLength);
        yield chunk;
        continue;
      }
      if (request.readableEnded) return;
      if (signal.aborted || request.destroyed) onCut();
      if (failure !== undefined) throw failure;
      const stop = clock.wait(() => fail(new AppError("DEADLINE_EXCEEDED", "the request body came too slowly")));
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      stop();
    }
  } finally {
    signal.removeEventListener("abort", onCut);
    request.off("readable", onReadable);
    request.off("end", onReadable);
    request.off("aborted", onCut);
    request.off("error", onCut);
    // Without a reader of "readable" the rest flows again, to be dropped after the answer.
    if (!request.readableEnded) request.resume();
  }
}

/** Measures how long a body is waited for, and how much of it came. */
function paceClock({ bodyGraceMs, minBodyBytesPerSecond }: BodyPace) {
  let waitedMs = 0;
  let receivedBytes = 0;
  return {
    received(bytes: number): void {
      receivedBytes += bytes;
    },
    /** Calls `onSlow` when the body is too slow while it is waited for. Returns what ends the wait. */
    wait(onSlow: () => void): () => void {
      const startMs = performance.now();
      const earnedMs = Math.max(bodyGraceMs, (receivedBytes / minBodyBytesPerSecond) * 1_000);
      const timer = setTimeout(onSlow, Math.max(0, earnedMs - waitedMs));
      return () => {
        clearTimeout(timer);
        waitedMs += performance.now() - startMs;
      };
    },
  };
}
