import type { Tracer } from "@opentelemetry/api";
import type { PrincipalCheck } from "../../runtime/identity/principal-check.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { ModelCatalog } from "../models/model.ts";
import type { PastTurns } from "./history.ts";
import type { ToolCaller, ToolRunner } from "./ports.ts";
import type { Turn, TurnJournal } from "./session-journal.ts";
import type { TurnMetrics } from "./turn-metrics.ts";

/** What a turn needs besides its session. */
export interface TurnServices {
  readonly models: ModelCatalog;
  readonly tools: ToolRunner;
  readonly principals: PrincipalCheck;
  readonly metrics: TurnMetrics;
  readonly tracer: Tracer;
  readonly log: Logger;
}

/** Everything that the steps of a turn work with. */
export interface TurnContext extends TurnServices {
  readonly turn: Turn;
  readonly journal: TurnJournal;
  readonly history: PastTurns;
}

/** For whom a turn calls tools. */
export function toolCaller({ turn, journal }: Pick<TurnContext, "turn" | "journal">): ToolCaller {
  const { requestId, traceparent } = turn.run.accepted;
  return {
    principal: turn.principal,
    requestId,
    traceparent,
    runId: turn.run.runId,
    sessionId: journal.sessionId,
    epoch: journal.epoch,
  };
}

/** Abandons the turn when something that nobody waits for cannot be stored. */
export async function follow({ turn, log }: Pick<TurnContext, "turn" | "log">, stored: Promise<void>): Promise<void> {
  try {
    await stored;
  } catch (error) {
    log.debug({ err: error, runId: turn.run.runId }, "a turn was abandoned");
    turn.stop("abandon");
  }
}
