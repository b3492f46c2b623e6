import type { RunError, RunParked } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import type { Run } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { CadreError, type CadreErrorInit, type CadreErrorReason, reasonName } from "../error.ts";

/**
 * What `RunHandle.result` throws when a run has no output: it failed, it was
 * cancelled (`reason` is `CANCELLED`), or it is parked and waits for somebody
 * to look at it. The call itself went well; `state` tells them apart.
 *
 * @example
 * ```ts
 * try {
 *   await run.result();
 * } catch (error) {
 *   if (error instanceof RunFailed && error.state === "parked") console.log(error.diff.join("\n"));
 *   else throw error;
 * }
 * ```
 */
export class RunFailed extends CadreError {
  override readonly name: string = "RunFailed";
  readonly runId: string;
  readonly state: "failed" | "cancelled" | "parked";
  /** The step that failed; empty if it was not a step. */
  readonly step: string;
  /** Of a parked run: what was expected, and what is there instead, a line each. */
  readonly diff: readonly string[];

  constructor(
    runId: string,
    state: RunFailed["state"],
    reason: CadreErrorReason,
    message: string,
    {
      step = "",
      diff = [],
      ...init
    }: CadreErrorInit & { readonly step?: string; readonly diff?: readonly string[] } = {},
  ) {
    super(reason, message, init);
    this.runId = runId;
    this.state = state;
    this.step = step;
    this.diff = diff;
  }
}

/** Why a run failed. */
export function failureOfRun(runId: string, error: RunError | undefined): RunFailed {
  if (error === undefined)
    return new RunFailed(runId, "failed", "INTERNAL", "the run failed, and the server does not say why");
  const { reason, message, step } = error;
  const at = step === "" ? "" : `step ${step}: `;
  return new RunFailed(runId, "failed", reasonName(reason), `${at}${message}`, { step });
}

/** That a run was cancelled. */
export function cancellationOfRun(runId: string): RunFailed {
  return new RunFailed(runId, "cancelled", "CANCELLED", "the run was cancelled");
}

/** Why a run is parked. */
export function parkedFailure(run: Run | { readonly runId: string; readonly parked?: RunParked }): RunFailed {
  const { runId, parked } = run;
  const remedy = `Look at it with \`cadre runs get ${runId}\`, then resume, fork or cancel it.`;
  if (parked === undefined) return new RunFailed(runId, "parked", "INTERNAL", "the run is parked", { remedy });
  const { reason, message, diff } = parked;
  return new RunFailed(runId, "parked", reasonName(reason), `the run is parked: ${message}`, { remedy, diff });
}
