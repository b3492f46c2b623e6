import type { SpanContext } from "@opentelemetry/api";
import { randomPool } from "../ids/random-pool.ts";

const pattern = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
const noTrace = "0".repeat(32);
const noSpan = "0".repeat(16);

/** Reads a W3C `traceparent`. `undefined` if it is none (https://www.w3.org/TR/trace-context/#traceparent-header). */
export function parseTraceparent(text: string): SpanContext | undefined {
  if (!pattern.test(text)) return undefined;
  const traceId = text.slice(3, 35);
  const spanId = text.slice(36, 52);
  if (traceId === noTrace || spanId === noSpan) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(text.slice(53), 16) & 1, isRemote: true };
}

/** Whether somebody records the trace. */
export function isSampled({ traceFlags }: SpanContext): boolean {
  return (traceFlags & 1) === 1;
}

/** Writes a W3C `traceparent`. */
export function toTraceparent(span: SpanContext): string {
  return `00-${span.traceId}-${span.spanId}-${span.traceFlags === 1 ? "01" : "00"}`;
}

/**
 * A trace context of its own for a request that is not traced: its id ties log
 * lines and events of all hops together.
 */
export function newSpanContext(): SpanContext {
  const hex = Buffer.from(randomPool(24).buffer).toString("hex");
  return { traceId: hex.slice(0, 32), spanId: hex.slice(32), traceFlags: 0 };
}

/** The trace id within a `traceparent`; empty if it is none. */
export function traceIdOf(traceparent: string): string {
  return parseTraceparent(traceparent)?.traceId ?? "";
}
