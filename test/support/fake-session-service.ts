import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type SessionEvent, SessionEventSchema, TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import {
  type SendTurnRequest,
  type SessionService,
  type StreamEventsResponse,
  StreamEventsResponseSchema,
  TurnSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";

/** The id of the one session. */
export const fakeSessionId = `ses_${"1".repeat(26)}`;

/** What a stream does instead of going on. Counted in the messages that it has sent. */
export type Cut =
  | { readonly kind: "error" | "end" | "silence" | "repeat" | "skip"; readonly after: number }
  | { readonly kind: "refuse" };

/** A session service with one session, whose log the test writes, and whose streams break on demand. */
export interface FakeSessionService {
  readonly handlers: Partial<ServiceImpl<typeof SessionService>>;
  /** The `after_seq` of each stream that was opened. */
  readonly cursors: readonly bigint[];
  /** The idempotency key of each `SendTurn` that arrived. */
  readonly keys: readonly string[];
  /** How many streams are open now. */
  readonly open: number;
  /** Appends events; their numbers follow. */
  append(...bodies: NonNullable<MessageInitShape<typeof SessionEventSchema>["body"]>[]): void;
  /** The next streams break like this, one after the other. */
  breakNext(...cuts: readonly Cut[]): void;
  /** Runs when a turn was sent. */
  onSend: (turnId: string, request: SendTurnRequest) => void;
  /** Thrown by the next `SendTurn` calls, after the turn was stored. */
  failSends(...errors: readonly ConnectError[]): void;
}

/** Creates the service. A turn's id is `run_`, 25 zeros and its number. */
export function createFakeSessionService(): FakeSessionService {
  const log: SessionEvent[] = [];
  const cuts: Cut[] = [];
  const cursors: bigint[] = [];
  const keys: string[] = [];
  const turnByKey = new Map<string, string>();
  const failures: ConnectError[] = [];
  let currentTurn = `run_${"0".repeat(26)}`;
  let turns = 0;
  let open = 0;
  let appended = Promise.withResolvers<void>();

  async function* stream(afterSeq: bigint, signal: AbortSignal): AsyncGenerator<StreamEventsResponse> {
    cursors.push(afterSeq);
    const cut = cuts.shift();
    if (cut?.kind === "refuse") throw new ConnectError("restarting", Code.Unavailable);
    let sent = 0;
    let index = Number(afterSeq);
    open += 1;
    // Not in a finally: a generator that nobody pulls any more never gets there.
    signal.addEventListener("abort", () => {
      open -= 1;
    });
    while (!signal.aborted) {
      const event = log[index];
      if (event === undefined) {
        await Promise.race([appended.promise, aborted(signal)]);
        continue;
      }
      if (cut !== undefined && sent >= cut.after) {
        switch (cut.kind) {
          case "error":
            throw new ConnectError("cut", Code.Unavailable);
          case "end":
            return;
          case "silence":
            await aborted(signal);
            return;
          case "repeat":
            // Everything once more, as a server with a bug would.
            for (const old of log.slice(0, index)) yield create(StreamEventsResponseSchema, { event: old });
            break;
          case "skip":
            index += 1;
            sent = Number.NEGATIVE_INFINITY;
            continue;
        }
      }
      yield create(StreamEventsResponseSchema, { event });
      yield create(StreamEventsResponseSchema, {});
      sent += 1;
      index += 1;
    }
  }

  const fake: FakeSessionService = {
    cursors,
    keys,
    get open() {
      return open;
    },
    onSend: () => undefined,
    append(...bodies) {
      for (const body of bodies) {
        const seq = BigInt(log.length + 1);
        log.push(create(SessionEventSchema, { seq, sessionId: fakeSessionId, turnId: currentTurn, body }));
      }
      appended.resolve();
      appended = Promise.withResolvers();
    },
    breakNext: (...next) => void cuts.push(...next),
    failSends: (...next) => void failures.push(...next),
    handlers: {
      createSession: ({ title }) => ({ session: { sessionId: fakeSessionId, title } }),
      getSession: ({ sessionId }) => ({ session: { sessionId } }),
      sendTurn(request, context: HandlerContext) {
        const key = context.requestHeader.get("idempotency-key") ?? "";
        keys.push(key);
        let turnId = turnByKey.get(key);
        if (turnId === undefined) {
          turns += 1;
          turnId = `run_${String(turns).padStart(26, "0")}`;
          turnByKey.set(key, turnId);
          currentTurn = turnId;
          fake.onSend(turnId, request);
        }
        const failure = failures.shift();
        if (failure !== undefined) throw failure;
        return { turn: create(TurnSchema, { turnId, sessionId: request.sessionId, state: TurnState.RUNNING }) };
      },
      streamEvents: ({ afterSeq }, context) => stream(afterSeq, context.signal),
    },
  };
  return fake;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
