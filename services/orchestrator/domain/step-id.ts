import { createHash } from "node:crypto";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";

/**
 * The id of a step: the same each time it is asked for, so that every attempt,
 * in whatever process, is known by it; it is the step's idempotency key, too.
 * Shaped as a UUIDv7 with the run's time, so that it sorts with its run.
 *
 * @param place where the step stands in its run, for example `model:1` or `tool:1:0`
 */
export function stepId(runId: string, place: string): string {
  const run = Buffer.from(toUuid("run", runId).replaceAll("-", ""), "hex");
  const bytes = createHash("sha256").update(run).update(place).digest().subarray(0, 16);
  run.copy(bytes, 0, 0, 6);
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  return fromUuid("stp", bytes.toString("hex"));
}

/** The step of a round's model call. */
export function modelStepId(runId: string, round: number): string {
  return stepId(runId, `model:${round}`);
}

/** The step of a tool call that a round's model call asked for. */
export function toolStepId(runId: string, round: number, index: number): string {
  return stepId(runId, `tool:${round}:${index}`);
}
