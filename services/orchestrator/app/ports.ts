import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { PinnedTool, Receipt, ToolOutcome } from "../domain/entry.ts";
import type { JsonObject } from "../domain/json.ts";

/** For whom and what a run calls tools. */
export interface ToolCaller {
  readonly principal: Principal;
  readonly requestId: string;
  readonly traceparent: string;
  readonly runId: string;
  readonly sessionId: string;
  /** The epoch of the shard's owner. */
  readonly epoch: bigint;
}

/** Runs tools, once for each step. */
export interface ToolRunner {
  /** The definitions behind names, ordered by name; names that no tool has are left out. */
  resolve(caller: ToolCaller, names: readonly string[], signal: AbortSignal): Promise<readonly PinnedTool[]>;
  /**
   * Executes a step's call, or joins the one that runs, or gives the outcome it
   * had. A process of the tools that goes away meanwhile is asked again.
   *
   * @throws AppError EPOCH_STALE; whatever the signal's reason is
   */
  execute(
    caller: ToolCaller,
    call: {
      readonly tool: PinnedTool;
      readonly stepId: string;
      readonly attempt: number;
      readonly arguments: JsonObject;
      readonly onOutput: (text: string) => void;
    },
    signal: AbortSignal,
  ): Promise<ToolOutcome>;
  /**
   * Executes a step's call like `execute`, for its outcome alone.
   *
   * @throws AppError EPOCH_STALE; whatever the signal's reason is
   */
  call(
    caller: ToolCaller,
    call: {
      readonly tool: PinnedTool;
      readonly stepId: string;
      readonly attempt: number;
      readonly arguments: JsonObject;
      /** Outcomes of the key that were failures and are void: how many attempts failed on record. */
      readonly afterFailures: number;
      readonly timeoutMs: number | undefined;
      readonly heartbeatTimeoutMs: number | undefined;
    },
    signal: AbortSignal,
  ): Promise<ToolOutcome>;
  /** Cancels a step's call, waits a second at most for its end, and says how far it got. Never throws. */
  cancel(caller: ToolCaller, stepId: string): Promise<Receipt>;
}
