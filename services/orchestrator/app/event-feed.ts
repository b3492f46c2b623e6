import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";

/** How many events wait for a reader at most; past it, the reader reads the table. */
const maxBuffered = 256;

/**
 * Tells readers of this process what was stored, as it is stored. It is a
 * shortcut, never the truth: a reader that finds a gap, or that is told to look,
 * reads the session's events from the table.
 */
export class EventFeed {
  readonly #readers = new Map<string, Set<FeedReader>>();

  /** How many readers there are. */
  get size(): number {
    let size = 0;
    for (const readers of this.#readers.values()) size += readers.size;
    return size;
  }

  /** The sessions that somebody reads. */
  sessions(): Iterable<string> {
    return this.#readers.keys();
  }

  /** Begins to follow a session. End it with `close`. */
  open(sessionId: string): FeedReader {
    const reader = new FeedReader(() => {
      const readers = this.#readers.get(sessionId);
      readers?.delete(reader);
      if (readers?.size === 0) this.#readers.delete(sessionId);
    });
    const readers = this.#readers.get(sessionId);
    if (readers === undefined) this.#readers.set(sessionId, new Set([reader]));
    else readers.add(reader);
    return reader;
  }

  /** Tells what was stored in a session, in order. */
  publish(sessionId: string, events: readonly SessionEvent[]): void {
    for (const reader of this.#readers.get(sessionId) ?? []) reader.push(events);
  }

  /** Tells the readers of a session to look into the table: another process stored something. */
  wake(sessionId: string): void {
    for (const reader of this.#readers.get(sessionId) ?? []) reader.look();
  }

  /** The same for all sessions: notifications may have got lost. */
  wakeAll(): void {
    for (const sessionId of [...this.#readers.keys()]) this.wake(sessionId);
  }
}

/** What a reader is told: events in order, or to read the table. */
export type FeedNews =
  | { readonly type: "events"; readonly events: readonly SessionEvent[] }
  | { readonly type: "look" };

/** One reader of a session. */
export class FeedReader {
  readonly #onClose: () => void;
  #events: SessionEvent[] = [];
  #look = false;
  #wake: (() => void) | undefined;

  constructor(onClose: () => void) {
    this.#onClose = onClose;
  }

  /** Adds events; drops them and asks for a look when the reader is too slow. */
  push(events: readonly SessionEvent[]): void {
    if (this.#events.length + events.length > maxBuffered) {
      this.look();
      return;
    }
    this.#events.push(...events);
    this.#wake?.();
  }

  /** Asks the reader to read the table. */
  look(): void {
    this.#events = [];
    this.#look = true;
    this.#wake?.();
  }

  /** Waits for news, for at most `timeoutMs`; undefined if there are none, or when the signal aborts. */
  async next(timeoutMs: number, signal: AbortSignal): Promise<FeedNews | undefined> {
    if (!this.#look && this.#events.length === 0 && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          this.#wake = undefined;
          resolve();
        };
        const timer = setTimeout(done, timeoutMs);
        signal.addEventListener("abort", done, { once: true });
        this.#wake = done;
      });
    }
    if (this.#look) {
      this.#look = false;
      this.#events = [];
      return { type: "look" };
    }
    if (this.#events.length === 0) return undefined;
    const events = this.#events;
    this.#events = [];
    return { type: "events", events };
  }

  /** Ends the reading. */
  close(): void {
    this.#onClose();
  }
}
