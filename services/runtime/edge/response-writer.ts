import type { OutgoingHttpHeaders } from "node:http";
import { type EdgeLimits, edgeLimits } from "./edge-limits.ts";
import type { EdgeResponse } from "./edge-request.ts";

/** What became of a write. */
export type WriteOutcome =
  /** More may be written. */
  | "ready"
  /** The reader took nothing for too long. Say so, end, and let `finish` cut it. */
  | "stalled"
  /** The reader is gone. */
  | "closed";

/** Writes a response no faster than it is read. */
export interface ResponseWriter {
  head(status: number, headers: OutgoingHttpHeaders): void;
  /**
   * Writes a part. Waits for the reader only when more than
   * `maxBufferedBytes` would wait, so at most that and one part are held.
   */
  write(part: Uint8Array | string): Promise<WriteOutcome>;
  /** Ends the response, and cuts it if it is not taken in time. Does not wait. */
  finish(options?: { readonly last?: Uint8Array; readonly trailers?: OutgoingHttpHeaders }): void;
}

/** How long an end may take after a stall was noticed. */
const afterStallMs = 5_000;

/** The response's methods that both versions of HTTP share; their overloads differ. */
interface Writable {
  write(part: Uint8Array | string): boolean;
  end(part?: Uint8Array): unknown;
  writeHead(status: number): unknown;
}

/** Wraps a response. Limits default to `edgeLimits`. */
export function createResponseWriter(
  response: EdgeResponse,
  limits: Pick<EdgeLimits, "maxBufferedBytes" | "stallTimeoutMs"> = edgeLimits,
): ResponseWriter {
  const writable = response as unknown as Writable;
  let stalled = false;
  return {
    head(status, headers) {
      // Fields that the edge set itself stay, and these join them.
      for (const name in headers) {
        const value = headers[name];
        if (value !== undefined) response.setHeader(name, value as string | readonly string[]);
      }
      response.statusCode = status;
    },
    async write(part) {
      if (response.destroyed || response.writableEnded) return "closed";
      if (writable.write(part) || stalled || response.writableLength < limits.maxBufferedBytes) {
        return stalled ? "stalled" : "ready";
      }
      const outcome = await drained(response, limits.stallTimeoutMs);
      stalled = outcome === "stalled";
      return outcome;
    },
    finish({ last, trailers } = {}) {
      if (response.destroyed) return;
      if (trailers !== undefined) {
        // Of a response without a body, HTTP/2 in Node sends trailers only if the header went out before.
        if (!response.headersSent) writable.writeHead(response.statusCode);
        response.addTrailers(trailers);
      }
      if (last === undefined) writable.end();
      else writable.end(last);
      if (response.writableFinished) return;
      const timer = setTimeout(() => response.destroy(), stalled ? afterStallMs : limits.stallTimeoutMs);
      response.once("close", () => clearTimeout(timer));
    },
  };
}

/** Waits until the buffer is empty; `stalled` if it did not become smaller for a while. */
function drained(response: EdgeResponse, stallTimeoutMs: number): Promise<WriteOutcome> {
  return new Promise((resolve) => {
    let waiting = response.writableLength;
    const settle = (outcome: WriteOutcome) => {
      clearInterval(timer);
      response.off("drain", onDrain);
      response.off("close", onClose);
      resolve(outcome);
    };
    const onDrain = () => settle("ready");
    const onClose = () => settle("closed");
    const timer = setInterval(() => {
      if (response.writableLength >= waiting) settle("stalled");
      waiting = response.writableLength;
    }, stallTimeoutMs);
    response.once("drain", onDrain);
    response.once("close", onClose);
  });
}
