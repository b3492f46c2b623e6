/** One event of a `text/event-stream` (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export interface ServerEvent {
  /** Where to resume: the browser sends it back as `Last-Event-ID`. */
  readonly id?: string;
  /** `message` if it is left out. */
  readonly event?: string;
  /** JSON on one line. */
  readonly data: string;
}

/**
 * Writes an event. None of its parts holds a line break: ids are numbers,
 * types come from the contract, and JSON escapes what breaks a line.
 */
export function toEventFrame({ id, event, data }: ServerEvent): string {
  const head = `${id === undefined ? "" : `id: ${id}\n`}${event === undefined ? "" : `event: ${event}\n`}`;
  return `${head}data: ${data}\n\n`;
}

/** What shows that a quiet stream lives; readers ignore it. */
export const keepaliveFrame = ": keepalive\n\n";

/** Tells readers how long to wait, in milliseconds, before they connect again. */
export function toRetryFrame(retryMs: number): string {
  return `retry: ${retryMs}\n\n`;
}
