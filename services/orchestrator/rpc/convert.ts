import { create, fromBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { UsageSchema } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { type Session, SessionSchema, type Turn, TurnSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { fromUuid } from "../../runtime/ids/id.ts";
import { toTurn } from "../app/turn-view.ts";
import type { StoredSession, StoredView } from "../store/session-store.ts";

/** A session as callers see it. */
export function toSession(stored: StoredSession): Session {
  return create(SessionSchema, {
    sessionId: fromUuid("ses", stored.sessionId),
    agentId: fromUuid("agt", stored.agentId),
    title: stored.title,
    labels: { ...stored.labels },
    busy: stored.busy,
    lastSeq: BigInt(stored.lastSeq),
    usage: create(UsageSchema, {
      inputTokens: BigInt(stored.usage.inputTokens),
      outputTokens: BigInt(stored.usage.outputTokens),
      modelCalls: stored.usage.modelCalls,
      toolCalls: stored.usage.toolCalls,
      duration: durationFromMs(stored.usage.durationMs),
    }),
    createdAt: timestampFromMs(stored.createdAtMs),
    updatedAt: timestampFromMs(stored.updatedAtMs),
  });
}

/** A turn as callers see it: the stored view, or what the journal says if it has not ended. */
export function fromView({ view, run }: StoredView): Turn {
  const turn = fromBinary(TurnSchema, view);
  return run === undefined ? turn : toTurn(run, Number(turn.afterSeq));
}
