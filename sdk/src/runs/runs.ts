import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { RunEvent } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import {
  BatchAction,
  type Checkpoint,
  type ExportRunResponse,
  type LedgerKey,
  type ReplayRunsResponse,
  type Run,
  RunService,
  type RunStep,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type Caller, type CallOptions, type EffectCallOptions, required } from "../caller.ts";
import { CadreError, reasonName } from "../error.ts";
import type { JsonValue } from "../json.ts";
import { createListing, type Listing, type PageOptions } from "../page.ts";
import { readOnce } from "../read-once.ts";
import type { EventsOptions } from "../resumed-stream.ts";
import { type RunDefinition, toStartRequest, toValueMessage } from "./run-definition.ts";
import { type RunFilterOptions, toRunFilter } from "./run-filter.ts";
import { createRunHandle, type RunHandle } from "./run-handle.ts";
import { type SignedRunRequest, signRunRequest } from "./run-request.ts";
import { streamRunEvents } from "./run-stream.ts";

/** What to run, and how the call is made. */
export type StartRunOptions<Input = JsonValue, Output = JsonValue> = RunDefinition<Input, Output> & EffectCallOptions;

/** How to look at a run. */
export interface GetRunOptions extends CallOptions {
  /** How long the server waits for the run's end before it answers, in milliseconds; at most 240,000; 0 unless said. */
  readonly waitMs?: number;
}

/** How to cancel a run. */
export interface CancelRunOptions extends CallOptions {
  /** Why, for people. */
  readonly reason?: string;
  /** Run the compensations of the steps that had succeeded. */
  readonly compensate?: boolean;
}

/** How to decide on an approval. */
export interface DecideOptions extends CallOptions {
  /** Why, for people. */
  readonly reason?: string;
}

/** From where to fork, and with what. */
export interface ForkRunOptions extends EffectCallOptions {
  /** The number of the checkpoint; 0, the start, unless said. */
  readonly checkpoint?: number;
  /** What the new run is given instead of what the old one was. */
  readonly input?: unknown;
  /** The new run's marks; those of the old one unless said. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** How to deal with many runs. */
export interface BatchOptions {
  /** Only say which ones it would be. */
  readonly dryRun?: boolean;
  /** With `cancel`: run compensations, too. */
  readonly compensate?: boolean;
  /** Ends the work where it is. */
  readonly signal?: AbortSignal;
}

/** How far a batch is. */
export interface BatchProgress {
  /** A run that was dealt with; empty in the last message. */
  readonly runId: string;
  /** Why it could not be dealt with. */
  readonly error: CadreError | undefined;
  readonly done: number;
  readonly failed: number;
  /** How many there were when the batch began. */
  readonly total: number;
}

/** Durable runs of graphs. A run goes to its end whatever becomes of the caller; a session's turns are runs, too. */
export interface Runs {
  /**
   * Starts a run; resolves as soon as it is stored. Repeats the call if its
   * outcome was lost, without starting the run twice.
   *
   * @throws CadreError `INVALID_GRAPH` with `violations`, `AGENT_NOT_FOUND`, `TOOL_NOT_FOUND`, `LIMIT_EXCEEDED`
   *
   * @example
   * ```ts
   * const run = await cadre.runs.start({ agent: "order-report", input: { month: "2026-02" } });
   * console.log(await run.result());
   * ```
   */
  start<Input = JsonValue, Output = JsonValue>(options: StartRunOptions<Input, Output>): Promise<RunHandle<Output>>;
  /**
   * Signs a request for a run that goes through the bus, for a client that
   * reaches the broker. Starts nothing: whoever publishes it on
   * `agent.runs.requested.v1` does.
   *
   * @throws CadreError `SCOPE_MISSING` without the scope `runs.write`
   */
  signRequest<Input = JsonValue, Output = JsonValue>(
    options: StartRunOptions<Input, Output>,
  ): Promise<SignedRunRequest>;
  /** Returns a run with its steps. @throws CadreError `RUN_NOT_FOUND` */
  get<Output = JsonValue>(runId: string, options?: GetRunOptions): Promise<RunHandle<Output>>;
  /** Lists runs of the org, newest first, without their steps. */
  list(options?: PageOptions & RunFilterOptions): Listing<Run>;
  /**
   * Streams the events of a run from a number on until it has ended. Takes the
   * stream up again when it breaks: no event is lost, repeated or out of order.
   *
   * @throws CadreError when the server refuses, when it could not be reached
   *   for as long as `reconnect` says, or `CANCELLED` when the signal aborts
   */
  events(runId: string, options?: EventsOptions): AsyncGenerator<RunEvent, void, undefined>;
  /**
   * Cancels a run and its children; resolves when that is stored.
   *
   * @throws CadreError `RUN_ENDED`, `RUN_NOT_FOUND`
   */
  cancel(runId: string, options?: CancelRunOptions): Promise<Run>;
  /** Goes on with a parked run, for the principal that asks. @throws CadreError `RUN_NOT_PARKED`, `RUN_NOT_FOUND` */
  resume(runId: string, options?: EffectCallOptions): Promise<Run>;
  /**
   * Sends a named message to a run, which keeps it until a step waits for it;
   * resolves to the number of its entry in the run's journal.
   *
   * @param payload what has JSON; `null` unless said; at most 1 MiB
   * @throws CadreError `RUN_ENDED`, `RUN_NOT_FOUND`
   */
  signal(runId: string, name: string, payload?: unknown, options?: EffectCallOptions): Promise<bigint>;
  /**
   * Approves a step that waits for a person; wants the scope `runs.approve`.
   *
   * @throws CadreError `STEP_NOT_WAITING`, `STEP_NOT_FOUND`, `RUN_NOT_FOUND`
   */
  approve(runId: string, step: string, options?: DecideOptions): Promise<RunStep>;
  /** Refuses one, likewise. */
  refuse(runId: string, step: string, options?: DecideOptions): Promise<RunStep>;
  /** Lists the places from which a run can be forked, oldest first. @throws CadreError `RUN_NOT_FOUND` */
  checkpoints(runId: string, options?: PageOptions): Listing<Checkpoint>;
  /**
   * Starts a new run from a checkpoint of another one.
   *
   * @throws CadreError `CHECKPOINT_NOT_FOUND`, `RUN_OF_SESSION`, `RUN_NOT_FOUND`
   */
  fork<Output = JsonValue>(runId: string, options?: ForkRunOptions): Promise<RunHandle<Output>>;
  /** Deletes a run that ended, with its children. @throws CadreError `RUN_OPEN`, `RUN_OF_SESSION`, `RUN_NOT_FOUND` */
  delete(runId: string, options?: CallOptions): Promise<void>;
  /**
   * Cancels, resumes or deletes all runs that a filter finds, and tells how far
   * it is; not each run is told. Leaving the loop ends the work; asking again
   * goes on with the rest.
   *
   * @example
   * ```ts
   * for await (const { done, total } of cadre.runs.batch("cancel", { labels: { batch: "7" } })) {
   *   console.log(`${done} of ${total}`);
   * }
   * ```
   */
  batch(
    action: "cancel" | "resume" | "delete",
    filter: RunFilterOptions,
    options?: BatchOptions,
  ): AsyncGenerator<BatchProgress, void, undefined>;
  /** Streams a run's journal as it is stored, with what is needed to verify it offline. */
  export(
    runId: string,
    options?: { readonly signal?: AbortSignal },
  ): AsyncGenerator<ExportRunResponse, void, undefined>;
  /** Returns the keys of a JWK set by which the signature of an export's last entry is verified; the first one signs. */
  ledgerKeys(options?: CallOptions): Promise<readonly LedgerKey[]>;
  /** Checks stored histories against the code and the definitions at hand, without executing anything. */
  replay(
    history: RunFilterOptions | { readonly runId: string; readonly entries: readonly ExportRunResponse[] },
    options?: { readonly signal?: AbortSignal },
  ): AsyncGenerator<ReplayRunsResponse, void, undefined>;
}

/** How long an answer may take behind what the server was asked to wait, in milliseconds. */
const answerMs = 15_000;

const batchAction = {
  cancel: BatchAction.CANCEL,
  resume: BatchAction.RESUME,
  delete: BatchAction.DELETE,
} as const;

/** Creates the runs of a client. */
export function createRuns(caller: Caller): Runs {
  const { method } = RunService;

  async function decide(runId: string, step: string, approved: boolean, options: DecideOptions): Promise<RunStep> {
    const { reason = "", ...callOptions } = options;
    const response = await caller.unary(method.decideApproval, { runId, step, approved, reason }, callOptions);
    return required(response.step, "the step");
  }

  const runs: Runs = {
    async start<Input, Output>(options: StartRunOptions<Input, Output>) {
      const { idempotencyKey, signal, timeoutMs } = options;
      const request = toStartRequest(options);
      const { run } = await caller.unary(method.startRun, request, { idempotencyKey, signal, timeoutMs });
      return createRunHandle<Output>(runs, required(run, "the run"));
    },
    signRequest: (options) => signRunRequest(caller, toStartRequest(options), options),
    async get<Output>(runId: string, { waitMs = 0, ...options }: GetRunOptions = {}) {
      // The server's wait must not be cut short by the call's own timeout.
      const timeoutMs = options.timeoutMs ?? (waitMs > 0 ? waitMs + answerMs : undefined);
      const request = { runId, wait: durationFromMs(waitMs) };
      const { run } = await caller.unary(method.getRun, request, { ...options, timeoutMs });
      return createRunHandle<Output>(runs, required(run, "the run"));
    },
    list(options = {}) {
      const filter = toRunFilter(options);
      return createListing(options, async (pageToken) => {
        const request = { pageSize: options.pageSize ?? 0, pageToken, filter };
        const response = await caller.unary(method.listRuns, request, { signal: options.signal });
        return { items: response.runs, nextPageToken: response.nextPageToken };
      });
    },
    events: (runId, options) => streamRunEvents(caller, runId, options),
    async cancel(runId, { reason = "", compensate = false, ...options } = {}) {
      const { run } = await caller.unary(method.cancelRun, { runId, reason, compensate }, options);
      return required(run, "the run");
    },
    async resume(runId, options) {
      const { run } = await caller.unary(method.resumeRun, { runId }, options);
      return required(run, "the run");
    },
    async signal(runId, name, payload, options) {
      const request = { runId, signal: name, payload: toValueMessage(payload) };
      const { seq } = await caller.unary(method.signalRun, request, options);
      return seq;
    },
    approve: (runId, step, options = {}) => decide(runId, step, true, options),
    refuse: (runId, step, options = {}) => decide(runId, step, false, options),
    checkpoints(runId, options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { runId, pageSize: options.pageSize ?? 0, pageToken };
        const response = await caller.unary(method.listCheckpoints, request, { signal: options.signal });
        return { items: response.checkpoints, nextPageToken: response.nextPageToken };
      });
    },
    async fork<Output>(runId: string, { checkpoint = 0, input, labels = {}, ...options }: ForkRunOptions = {}) {
      const request = {
        runId,
        checkpoint,
        labels: { ...labels },
        ...(input === undefined ? {} : { input: toValueMessage(input) }),
      };
      const { run } = await caller.unary(method.forkRun, request, options);
      return createRunHandle<Output>(runs, required(run, "the run"));
    },
    async delete(runId, options) {
      await caller.unary(method.deleteRun, { runId }, options);
    },
    async *batch(action, filter, { dryRun = false, compensate = false, signal } = {}) {
      const request = { action: batchAction[action], filter: toRunFilter(filter), dryRun, compensate };
      for await (const message of readOnce(caller, method.batchRuns, request, signal)) {
        const { runId, error, done, failed, total } = message;
        yield {
          runId,
          error: error === undefined ? undefined : new CadreError(reasonName(error.reason), error.message),
          done: Number(done),
          failed: Number(failed),
          total: Number(total),
        };
      }
    },
    export: (runId, options = {}) => readOnce(caller, method.exportRun, { runId }, options.signal),
    async ledgerKeys(options) {
      const { keys } = await caller.unary(method.listLedgerKeys, {}, options);
      return keys;
    },
    replay(history, options = {}) {
      const selection =
        "entries" in history
          ? { case: "exported" as const, value: { runId: history.runId, entries: [...history.entries] } }
          : { case: "filter" as const, value: toRunFilter(history) };
      return readOnce(caller, method.replayRuns, { selection }, options.signal);
    },
  };
  return runs;
}
