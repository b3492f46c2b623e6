import type { Outcome, Progress } from "../domain/call.ts";
import { callTopic } from "../store/wake-ups.ts";
import type { ToolsDeps } from "./deps.ts";
import { Waker } from "./waker.ts";

/** What a reader of a call sees. */
export type CallEvent =
  | { readonly type: "started"; readonly workerName: string }
  | { readonly type: "output"; readonly text: string }
  | { readonly type: "ended"; readonly outcome: Outcome; readonly isFinal: boolean };

/**
 * Follows a call from its beginning: `started` for each hand-out, all that was
 * printed in order, and how it ended (`isFinal`) or lapsed. Sees to it that the
 * call is handed out and ended in time. Ends early, without a last event, when
 * the signal aborts.
 */
export async function* watchCall(
  deps: Pick<ToolsDeps, "calls" | "wakeUps">,
  orgId: string,
  callId: string,
  signal: AbortSignal,
): AsyncGenerator<CallEvent> {
  const waker = new Waker();
  const unsubscribe = deps.wakeUps.subscribe(callTopic(callId), waker.wake);
  try {
    let position = 0;
    let startedAttempt: number | undefined;
    while (!signal.aborted) {
      const view = await deps.calls.read(orgId, callId, position);
      if (view.state === "dispatched" || (view.workerName !== "" && view.state !== "queued")) {
        if (view.attempt !== startedAttempt) yield { type: "started", workerName: view.workerName };
        startedAttempt = view.attempt;
      }
      for (const text of view.output) yield { type: "output", text };
      position = view.position;
      if (view.hasMore) continue;
      if (view.outcome !== undefined) {
        yield { type: "ended", outcome: withProgress(view.outcome, view.progress), isFinal: view.state === "ended" };
        return;
      }
      if (view.state === "queued") await deps.calls.dispatch(callId);
      // A little more than the time that is left, so that it is over then.
      const wasWoken = await waker.wait(view.dueInMs + 5, signal);
      if (!wasWoken && !signal.aborted) await deps.calls.settle(callId);
    }
  } finally {
    unsubscribe();
  }
}

/** An outcome that was brought about from outside says how far the call had got. */
function withProgress(outcome: Outcome, progress: Progress | undefined): Outcome {
  return outcome.type === "result" || progress === "DONE" ? outcome : { ...outcome, progress };
}
