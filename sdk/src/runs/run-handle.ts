import type { RunEvent } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import type { Checkpoint, Run, RunStep } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { RunState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type CallOptions, type EffectCallOptions, required } from "../caller.ts";
import { CadreError } from "../error.ts";
import { type JsonValue, valueOf } from "../json.ts";
import type { Listing, PageOptions } from "../page.ts";
import type { EventsOptions } from "../resumed-stream.ts";
import { cancellationOfRun, failureOfRun, parkedFailure } from "./run-failed.ts";
import type { CancelRunOptions, DecideOptions, ForkRunOptions, Runs } from "./runs.ts";

/** A run. It goes on by itself, whatever becomes of this object. */
export interface RunHandle<Output = JsonValue> {
  readonly runId: string;
  /** The run as it was when the handle was made. */
  readonly run: Run;
  /**
   * Waits for the run's end and returns its output. Goes on over breaks of the
   * connection and restarts of the server. Ending the wait does not cancel the
   * run.
   *
   * @throws RunFailed if it failed, was cancelled, or is parked
   * @throws CadreError if its end cannot be learnt
   */
  result(options?: Omit<EventsOptions, "afterSeq">): Promise<Output>;
  /** As `Runs.events`. */
  events(options?: EventsOptions): AsyncGenerator<RunEvent, void, undefined>;
  /** The run as it is now. */
  refresh(options?: CallOptions): Promise<Run>;
  /** As `Runs.cancel`. */
  cancel(options?: CancelRunOptions): Promise<Run>;
  /** As `Runs.resume`. */
  resume(options?: EffectCallOptions): Promise<Run>;
  /** As `Runs.signal`. */
  signal(name: string, payload?: unknown, options?: EffectCallOptions): Promise<bigint>;
  /** As `Runs.approve`. */
  approve(step: string, options?: DecideOptions): Promise<RunStep>;
  /** As `Runs.refuse`. */
  refuse(step: string, options?: DecideOptions): Promise<RunStep>;
  /** As `Runs.fork`. */
  fork(options?: ForkRunOptions): Promise<RunHandle<Output>>;
  /** As `Runs.checkpoints`. */
  checkpoints(options?: PageOptions): Listing<Checkpoint>;
  /** As `Runs.delete`. */
  delete(options?: CallOptions): Promise<void>;
}

/** Creates the handle of a run. The caller vouches for the type of its output. */
export function createRunHandle<Output>(runs: Runs, run: Run): RunHandle<Output> {
  const { runId } = run;

  /** The output of a run that has ended; undefined if it has not. Throws RunFailed. */
  function outputOf(known: Run): { readonly output: JsonValue } | undefined {
    switch (known.state) {
      case RunState.SUCCEEDED:
        return { output: valueOf(required(known.output, "the run's output")) };
      case RunState.FAILED:
        throw failureOfRun(runId, known.error);
      case RunState.CANCELLED:
        throw cancellationOfRun(runId);
      case RunState.PARKED:
        throw parkedFailure(known);
      default:
        return undefined;
    }
  }

  async function result(options: Omit<EventsOptions, "afterSeq"> = {}): Promise<JsonValue> {
    const now = async () => outputOf((await runs.get(runId, { signal: options.signal })).run);
    // What the handle knows of a run that ended holds for ever; a parked one may have been resumed.
    const known = run.state === RunState.PARKED || run.state === RunState.SUCCEEDED ? await now() : outputOf(run);
    if (known !== undefined) return known.output;
    for await (const { body } of runs.events(runId, { ...options, afterSeq: run.lastSeq })) {
      if (body.case === "runParked") {
        const ended = await now();
        if (ended !== undefined) return ended.output;
      }
      if (body.case !== "runEnded") continue;
      const { outcome } = body.value;
      switch (outcome.case) {
        case "output":
          return valueOf(outcome.value);
        case "cancelled":
          throw cancellationOfRun(runId);
        case "error":
          throw failureOfRun(runId, outcome.value);
        default:
          // Too large for an event.
          break;
      }
    }
    const ended = await now();
    if (ended === undefined) throw new CadreError("INTERNAL", "the run's events ended before the run");
    return ended.output;
  }

  return {
    runId,
    run,
    result: async (options) => (await result(options)) as Output,
    events: (options) => runs.events(runId, options),
    refresh: async (options) => (await runs.get(runId, options)).run,
    cancel: (options) => runs.cancel(runId, options),
    resume: (options) => runs.resume(runId, options),
    signal: (name, payload, options) => runs.signal(runId, name, payload, options),
    approve: (step, options) => runs.approve(runId, step, options),
    refuse: (step, options) => runs.refuse(runId, step, options),
    fork: async (options) => createRunHandle<Output>(runs, (await runs.fork(runId, options)).run),
    checkpoints: (options) => runs.checkpoints(runId, options),
    delete: (options) => runs.delete(runId, options),
  };
}
