import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";

/** The text that a stream of events shows so far. */
export interface TextView {
  /** What the model wrote, without the attempts that were discarded. */
  readonly text: string;
  /**
   * Takes the next event. Returns whether the text changed other than at its
   * end, so that what was shown must be drawn anew.
   */
  apply(event: SessionEvent): boolean;
}

/**
 * Creates a view of the text that events carry. A step of the model that is
 * tried again has shown text already; its `attempt.discarded` event takes that
 * text out again. What a tool prints is not part of it.
 *
 * @example
 * ```ts
 * const view = createTextView();
 * for await (const event of cadre.sessions.stream(sessionId, "Hello")) {
 *   view.apply(event);
 *   element.textContent = view.text;
 * }
 * ```
 */
export function createTextView(): TextView {
  let attempts: { readonly stepId: string; readonly attempt: number; text: string }[] = [];
  return {
    get text() {
      return attempts.map(({ text }) => text).join("");
    },
    apply({ body }) {
      switch (body.case) {
        case "textDelta": {
          const { stepId, attempt, text } = body.value;
          const last = attempts.at(-1);
          if (last !== undefined && last.stepId === stepId && last.attempt === attempt) last.text += text;
          else attempts.push({ stepId, attempt, text });
          return false;
        }
        case "attemptDiscarded": {
          const { stepId, attempt } = body.value;
          const kept = attempts.filter((part) => part.stepId !== stepId || part.attempt !== attempt);
          const changed = kept.length !== attempts.length;
          attempts = kept;
          return changed;
        }
        default:
          return false;
      }
    },
  };
}

/**
 * Reads events to their end and returns the text that the model wrote, without
 * the attempts that were discarded. Give it the events of a turn; those of a
 * session never end.
 *
 * @throws whatever the iteration throws
 */
export async function collectText(events: AsyncIterable<SessionEvent>): Promise<string> {
  const view = createTextView();
  for await (const event of events) view.apply(event);
  return view.text;
}
