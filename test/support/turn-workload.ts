import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Cadre, CadreError, type SessionEvent, TurnState } from "@cadre/sdk";
import type { RunHistory } from "./checker.ts";
import { insist } from "./insist.ts";
import type { Workload } from "./workload.ts";

const states = {
  [TurnState.UNSPECIFIED]: "open",
  [TurnState.QUEUED]: "open",
  [TurnState.RUNNING]: "open",
  [TurnState.SUCCEEDED]: "succeeded",
  [TurnState.FAILED]: "failed",
  [TurnState.CANCELLED]: "cancelled",
} as const satisfies Record<TurnState, RunHistory["state"]>;

export interface TurnWorkloadOptions {
  /** Rounds of tools, with an answer of the model before each and after the last. */
  readonly rounds: number;
  /** Tools called at once in a round. */
  readonly fanOut: number;
  /** How long each tool works, in milliseconds. */
  readonly stepMs: number;
}

/** Runs that are the one turn of a session of their own; a run's id is its session's. */
export function turnWorkload({ rounds, fanOut, stepMs }: TurnWorkloadOptions): Workload {
  const plan = Array.from({ length: rounds }, (_, round) =>
    Array.from({ length: fanOut }, (_step, index) => `${round + 1}-${index + 1}`),
  );
  const script = (run: string): string =>
    plan
      .map((steps, round) =>
        [
          `say round-${round + 1}`,
          ...steps.map((step) => `call record ${JSON.stringify({ run, step, ms: stepMs })}`),
        ].join("\n"),
      )
      .concat("say done")
      .join("\n");
  return {
    steps: plan.flat(),
    async start(cadre, run) {
      const session = await cadre.sessions.create({ title: run, idempotencyKey: `session-of-${run}` });
      await session.send(script(run), { idempotencyKey: `turn-of-${run}` });
      return session.sessionId;
    },
    cancel: cancelTurn,
    isDamaged: isTurnDamaged,
    history: turnHistory,
  };
}

/** Runs that ask the model of an agent once, and have no effect. */
export function modelWorkload(agent: string): Workload {
  return {
    steps: [],
    async start(cadre, run) {
      const session = await cadre.sessions.create({ agent, title: run, idempotencyKey: `session-of-${run}` });
      await session.send(run, { idempotencyKey: `turn-of-${run}` });
      return session.sessionId;
    },
    cancel: cancelTurn,
    isDamaged: isTurnDamaged,
    history: turnHistory,
  };
}

const cancelTurn: Workload["cancel"] = async (cadre, id) => {
  await cadre.sessions.cancel(id);
};

const isTurnDamaged: Workload["isDamaged"] = async (cadre, id) => {
  try {
    await insist(() => cadre.sessions.turns(id).page());
    return false;
  } catch (error) {
    if (error instanceof CadreError && error.reason === "DATA_LOSS") return true;
    throw error;
  }
};

const turnHistory: Workload["history"] = async (cadre, id, signal) => {
  const events: SessionEvent[] = [];
  try {
    for await (const event of cadre.sessions.events(id, { signal, reconnect: { maxDelayMs: 500 } })) {
      events.push(event);
      if (event.body.case === "turnEnded") break;
    }
  } catch (error) {
    if (!(error instanceof CadreError)) throw error;
    if (error.reason === "SESSION_NOT_FOUND") return undefined;
    if (!signal.aborted) throw error;
  }
  return toHistory(id, [...events, ...(await later(cadre, id, events.length))]);
};

/** What stands behind the end, where nothing may be. */
async function later(cadre: Cadre, id: string, after: number): Promise<readonly SessionEvent[]> {
  const { session } = await insist(() => cadre.sessions.get(id));
  const events: SessionEvent[] = [];
  if (session.lastSeq <= BigInt(after)) return events;
  const signal = AbortSignal.timeout(60_000);
  for await (const event of cadre.sessions.events(id, { afterSeq: BigInt(after), signal })) {
    events.push(event);
    if (event.seq >= session.lastSeq) break;
  }
  return events;
}

function toHistory(id: string, events: readonly SessionEvent[]): RunHistory {
  const stepOf = new Map<string, string>();
  const stepEndedAtMs = new Map<string, number>();
  let state: RunHistory["state"] = "open";
  let reason: string | undefined;
  let endedAtMs: number | undefined;
  let ends = 0;
  for (const { body, at } of events) {
    const atMs = at === undefined ? 0 : timestampMs(at);
    if (body.case === "toolStarted") stepOf.set(body.value.stepId, String(body.value.arguments?.["step"]));
    if (body.case === "toolEnded") {
      if (body.value.outcome.case === "result") {
        stepEndedAtMs.set(stepOf.get(body.value.stepId) ?? body.value.stepId, atMs);
      } else {
        reason = `a tool failed: ${body.value.outcome.value?.message}`;
      }
    }
    if (body.case === "turnEnded") {
      state = states[body.value.state];
      reason = body.value.error?.message ?? reason;
      endedAtMs = atMs;
      ends += 1;
    }
  }
  const seqs = events.map(({ seq }) => Number(seq));
  return { id, state, ...(reason === undefined ? {} : { reason }), seqs, ends, endedAtMs, stepEndedAtMs };
}
