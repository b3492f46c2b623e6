import type { Usage } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { type SessionEvent, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService, type Turn } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";
import { CadreError, type CadreErrorReason, reasonName } from "./error.ts";
import { streamEvents } from "./event-stream.ts";
import type { EventsOptions } from "./resumed-stream.ts";

/** How a turn ended. */
export type TurnOutcome =
  | {
      readonly state: "succeeded";
      /** What the agent answered; JSON text if the turn had an answer schema. */
      readonly answer: string;
      readonly usage: Usage | undefined;
    }
  | {
      readonly state: "failed";
      readonly reason: CadreErrorReason;
      /** More about it, for people. */
      readonly message: string;
      readonly usage: Usage | undefined;
    }
  | {
      readonly state: "cancelled";
      /** The names of tools that did not confirm the cancellation. */
      readonly toolsMayStillRun: readonly string[];
      readonly usage: Usage | undefined;
    };

/** A turn that was sent. It goes on by itself, whatever becomes of this object. */
export interface TurnHandle {
  readonly sessionId: string;
  readonly turnId: string;
  /** The turn as it was stored. */
  readonly turn: Turn;
  /**
   * Streams the events of this turn, from its start unless `afterSeq` says
   * otherwise, until it has ended. Resumes over breaks. Leaving the loop does
   * not cancel the turn.
   *
   * @throws CadreError if the stream cannot go on
   */
  events(options?: EventsOptions): AsyncGenerator<SessionEvent, void, undefined>;
  /** Waits until the turn has ended. @throws CadreError if that cannot be learnt */
  outcome(options?: EventsOptions): Promise<TurnOutcome>;
  /**
   * Waits for the answer.
   *
   * @throws CadreError with the turn's reason if it failed, `CANCELLED` if it was cancelled
   */
  answer(options?: EventsOptions): Promise<string>;
  /** Asks to cancel the turn. Answered when that is stored; `outcome` says how it went. */
  cancel(options?: CallOptions): Promise<void>;
}

/** Creates the handle of a turn. */
export function createTurnHandle(caller: Caller, turn: Turn): TurnHandle {
  const { sessionId, turnId } = turn;

  async function* events(options: EventsOptions = {}): AsyncGenerator<SessionEvent, void, undefined> {
    const all = streamEvents(caller, sessionId, { ...options, afterSeq: options.afterSeq ?? turn.afterSeq });
    for await (const event of all) {
      if (event.turnId !== turnId) continue;
      yield event;
      if (event.body.case === "turnEnded") return;
    }
  }

  async function outcome(options?: EventsOptions): Promise<TurnOutcome> {
    for await (const { body } of events(options)) {
      if (body.case !== "turnEnded") continue;
      const { state, answer, error, usage, toolsMayStillRun } = body.value;
      switch (state) {
        case TurnState.SUCCEEDED:
          return { state: "succeeded", answer, usage };
        case TurnState.CANCELLED:
          return { state: "cancelled", toolsMayStillRun, usage };
        default: {
          const { reason, message } = required(error, "the reason why the turn failed");
          return { state: "failed", reason: reasonName(reason), message, usage };
        }
      }
    }
    throw new CadreError("INTERNAL", "the turn's events ended before the turn");
  }

  return {
    sessionId,
    turnId,
    turn,
    events,
    outcome,
    async answer(options) {
      const result = await outcome(options);
      switch (result.state) {
        case "succeeded":
          return result.answer;
        case "failed":
          throw new CadreError(result.reason, result.message);
        case "cancelled":
          throw new CadreError("CANCELLED", "the turn was cancelled");
      }
    },
    async cancel(options) {
      await caller.unary(SessionService.method.cancelTurn, { sessionId, turnId }, options);
    },
  };
}
