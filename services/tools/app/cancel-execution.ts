import type { Progress } from "../domain/call.ts";
import { callTopic } from "../store/wake-ups.ts";
import type { ToolsDeps } from "./deps.ts";
import { Waker } from "./waker.ts";

/** Which call to cancel. */
export interface Cancellation {
  readonly orgId: string;
  /** As it is stored; see `storedKey`. */
  readonly key: string;
  readonly epoch: bigint;
  readonly graceMs: number;
}

/**
 * Cancels a call and waits, for at most the grace, until its handler has ended.
 * A key that is not known never starts afterwards.
 *
 * @throws AppError EPOCH_STALE
 */
export async function cancelExecution(
  deps: Pick<ToolsDeps, "calls" | "running" | "wakeUps" | "announceStop">,
  cancellation: Cancellation,
): Promise<Progress> {
  const { orgId, key, epoch, graceMs } = cancellation;
  const local = await deps.running.cancel(orgId, key, graceMs);
  if (local !== undefined) return local;
  const { callId, progress } = await deps.calls.cancel(orgId, key, epoch, graceMs);
  if (progress === "NOT_STARTED") await deps.announceStop(orgId, key);
  if (progress !== undefined) return progress;
  const waker = new Waker();
  const unsubscribe = deps.wakeUps.subscribe(callTopic(callId), waker.wake);
  try {
    const endsAtMs = performance.now() + graceMs;
    for (;;) {
      const view = await deps.calls.read(orgId, callId, Number.MAX_SAFE_INTEGER);
      if (view.state === "ended") return view.progress ?? "DONE";
      const leftMs = endsAtMs - performance.now();
      if (leftMs <= 0) return await deps.calls.endCancelled(orgId, callId);
      await waker.wait(leftMs, new AbortController().signal);
    }
  } finally {
    unsubscribe();
  }
}
