import { hash } from "node:crypto";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";

/**
 * A UUID that is the same each time it is asked for, shaped as a UUIDv7 with the
 * run's time, so that it sorts with its run.
 *
 * @param place what it names within the run, for example `model:1`
 */
function derivedUuid(runId: string, place: string): string {
  const run = toUuid("run", runId).replaceAll("-", "");
  const size = 16 + Buffer.byteLength(place);
  const bytes = size <= scratch.length ? scratch : Buffer.alloc(size);
  bytes.write(run, "hex");
  bytes.write(place, 16);
  const digest = hash("sha256", bytes.subarray(0, size), "hex");
  const variant = "89ab"[Number.parseInt(digest.charAt(16), 16) & 3];
  return `${run.slice(0, 12)}7${digest.slice(13, 16)}${variant}${digest.slice(17, 32)}`;
}

/** What is hashed is put together here; each step has an id, and most facts have one. */
const scratch = Buffer.alloc(512);

/**
 * The id of a step: known to every attempt, in whatever process. It is the
 * step's idempotency key, too.
 *
 * @param place where the step stands in its run, for example `model:1` or `tool:1:0`
 */
export function stepId(runId: string, place: string): string {
  return fromUuid("stp", derivedUuid(runId, place));
}

/** The id of the fact that an entry states about something; a repetition is known by it. */
export function factId(runId: string, about: "turn" | "run" | "step" | "tool", seq: number): string {
  return fromUuid("evt", derivedUuid(runId, about === "turn" ? `fact:${seq}` : `${about}-fact:${seq}`));
}

/**
 * The step of a round's model call.
 *
 * @param prefix of the agent's step in a graph, for example `draft/`; empty in a turn
 */
export function modelStepId(runId: string, prefix: string, round: number): string {
  return stepId(runId, `${prefix}model:${round}`);
}

/** The step of a tool call that a round's model call asked for. */
export function toolStepId(runId: string, prefix: string, round: number, index: number): string {
  return stepId(runId, `${prefix}tool:${round}:${index}`);
}

/** The run that a step starts: the same one, however often it is started. */
export function derivedRunId(runId: string, stepId: string): string {
  return fromUuid("run", derivedUuid(runId, `child:${stepId}`));
}
