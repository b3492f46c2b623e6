import type { JsonObject } from "@bufbuild/protobuf";
import type { SessionEvent } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { OnBusy, type Session, SessionService, type Turn } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { type Caller, type CallOptions, type EffectCallOptions, required } from "./caller.ts";
import { streamEvents } from "./event-stream.ts";
import { jsonSchemaOf } from "./json-schema.ts";
import { createListing, type Listing, type PageOptions } from "./page.ts";
import type { EventsOptions } from "./resumed-stream.ts";
import type { StandardSchema } from "./standard-schema.ts";
import { createTurnHandle, type TurnHandle } from "./turn.ts";

/** What a new session is. */
export interface CreateSessionOptions extends EffectCallOptions {
  /** The agent's name; `assistant`, which every org has, unless said. */
  readonly agent?: string;
  /** The agent's id, instead of its name. */
  readonly agentId?: string;
  /** What people call the session; at most 256 characters. */
  readonly title?: string;
  /** The caller's own marks; at most 32 of 64 and 256 characters. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** How a message is sent. */
export interface SendOptions extends EffectCallOptions {
  /**
   * What to do while a turn runs: `reject` the message with `SESSION_BUSY`,
   * which is the default; `enqueue` it, with at most 16 waiting; `interrupt`:
   * cancel the turns that run or wait, then run it; or `rollback`: the same, and
   * no model is shown them again. When none runs, that is done to the last turn.
   */
  readonly onBusy?: "reject" | "enqueue" | "interrupt" | "rollback";
  /**
   * What the answer is held to, as JSON Schema or as a validator that can give
   * one; the answer is then JSON text.
   */
  readonly answerSchema?: JsonObject | StandardSchema;
}

/** How a message is sent and its events are streamed. */
export interface StreamOptions extends SendOptions, Omit<EventsOptions, "afterSeq"> {}

/**
 * Conversations with agents. A turn goes on by itself once it was sent; its
 * events can be read from any place, at any time, as often as one likes.
 */
export interface Sessions {
  /**
   * Creates a session.
   *
   * @throws CadreError `AGENT_NOT_FOUND`, `LIMIT_EXCEEDED`
   */
  create(options?: CreateSessionOptions): Promise<SessionHandle>;
  /** Returns a session. @throws CadreError `SESSION_NOT_FOUND` */
  get(sessionId: string, options?: CallOptions): Promise<SessionHandle>;
  /** Lists the org's sessions, newest first. */
  list(options?: PageOptions): Listing<Session>;
  /**
   * Deletes a session with its turns and events; a turn that runs is cancelled.
   *
   * @throws CadreError `SESSION_NOT_FOUND`, also if it was deleted before
   */
  delete(sessionId: string, options?: CallOptions): Promise<void>;
  /**
   * Sends a message; resolves as soon as the turn is stored. Repeats the call
   * if its outcome was lost, without sending the message twice.
   *
   * @param text at most 1 MiB in UTF-8
   * @throws CadreError `SESSION_BUSY`, `SESSION_NOT_FOUND`, `LIMIT_EXCEEDED`
   */
  send(sessionId: string, text: string, options?: SendOptions): Promise<TurnHandle>;
  /**
   * Sends a message and streams the events of its turn until it has ended.
   *
   * @throws CadreError as `send` and `events` do
   *
   * @example
   * ```ts
   * for await (const { body } of cadre.sessions.stream(sessionId, "What is 6 times 7?")) {
   *   if (body.case === "textDelta") process.stdout.write(body.value.text);
   * }
   * ```
   */
  stream(sessionId: string, text: string, options?: StreamOptions): AsyncGenerator<SessionEvent, void, undefined>;
  /**
   * Streams the events of a session from a number on, and then those that
   * follow, without end. Takes the stream up again when it breaks: no event is
   * lost, repeated or out of order.
   *
   * @throws CadreError when the server refuses, when it could not be reached
   *   for as long as `reconnect` says, or `CANCELLED` when the signal aborts
   */
  events(sessionId: string, options?: EventsOptions): AsyncGenerator<SessionEvent, never, undefined>;
  /**
   * Asks to cancel the turns that run or wait, or one of them; resolves when
   * that is stored, with the turns concerned: none if there was nothing to do.
   */
  cancel(sessionId: string, options?: CallOptions & { readonly turnId?: string }): Promise<readonly Turn[]>;
  /** Lists the turns of a session, oldest first: its history. */
  turns(sessionId: string, options?: PageOptions): Listing<Turn>;
  /** Returns a turn, for example to go on with its events. @throws CadreError `TURN_NOT_FOUND` */
  turn(sessionId: string, turnId: string, options?: CallOptions): Promise<TurnHandle>;
}

/** A session, with what `Sessions` can do for it. */
export interface SessionHandle {
  readonly sessionId: string;
  /** The session as it was when the handle was made. */
  readonly session: Session;
  /** As `Sessions.send`. */
  send(text: string, options?: SendOptions): Promise<TurnHandle>;
  /** As `Sessions.stream`. */
  stream(text: string, options?: StreamOptions): AsyncGenerator<SessionEvent, void, undefined>;
  /** As `Sessions.events`. */
  events(options?: EventsOptions): AsyncGenerator<SessionEvent, never, undefined>;
  /** As `Sessions.cancel`. */
  cancel(options?: CallOptions & { readonly turnId?: string }): Promise<readonly Turn[]>;
  /** As `Sessions.turns`. */
  turns(options?: PageOptions): Listing<Turn>;
  /** As `Sessions.delete`. */
  delete(options?: CallOptions): Promise<void>;
}

const onBusyNumber = {
  reject: OnBusy.REJECT,
  enqueue: OnBusy.ENQUEUE,
  interrupt: OnBusy.INTERRUPT,
  rollback: OnBusy.ROLLBACK,
} as const;

/** Creates the sessions of a client. */
export function createSessions(caller: Caller): Sessions {
  const { method } = SessionService;

  function handle(session: Session): SessionHandle {
    const { sessionId } = session;
    return {
      sessionId,
      session,
      send: (text, options) => sessions.send(sessionId, text, options),
      stream: (text, options) => sessions.stream(sessionId, text, options),
      events: (options) => sessions.events(sessionId, options),
      cancel: (options) => sessions.cancel(sessionId, options),
      turns: (options) => sessions.turns(sessionId, options),
      delete: (options) => sessions.delete(sessionId, options),
    };
  }

  const sessions: Sessions = {
    async create({ agent = "", agentId = "", title = "", labels = {}, ...options } = {}) {
      const request = { agent, agentId, title, labels: { ...labels } };
      const { session } = await caller.unary(method.createSession, request, options);
      return handle(required(session, "the session"));
    },
    async get(sessionId, options) {
      const { session } = await caller.unary(method.getSession, { sessionId }, options);
      return handle(required(session, "the session"));
    },
    list(options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { pageSize: options.pageSize ?? 0, pageToken };
        const { sessions, nextPageToken } = await caller.unary(method.listSessions, request, callOptions(options));
        return { items: sessions, nextPageToken };
      });
    },
    async delete(sessionId, options) {
      await caller.unary(method.deleteSession, { sessionId }, options);
    },
    async send(sessionId, text, { onBusy = "reject", answerSchema, ...options } = {}) {
      const request = {
        sessionId,
        text,
        onBusy: onBusyNumber[onBusy],
        ...(answerSchema === undefined ? {} : { answerSchema: jsonSchemaOf(answerSchema, "output") }),
      };
      const { turn } = await caller.unary(method.sendTurn, request, options);
      return createTurnHandle(caller, required(turn, "the turn"));
    },
    async *stream(sessionId, text, { reconnect, onBreak, ...options } = {}) {
      const turn = await sessions.send(sessionId, text, options);
      yield* turn.events({ signal: options.signal, reconnect, onBreak });
    },
    events: (sessionId, options) => streamEvents(caller, sessionId, options),
    async cancel(sessionId, { turnId = "", ...options } = {}) {
      const { turns } = await caller.unary(method.cancelTurn, { sessionId, turnId }, options);
      return turns;
    },
    turns(sessionId, options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { sessionId, pageSize: options.pageSize ?? 0, pageToken };
        const { turns, nextPageToken } = await caller.unary(method.listTurns, request, callOptions(options));
        return { items: turns, nextPageToken };
      });
    },
    async turn(sessionId, turnId, options) {
      const { turn } = await caller.unary(method.getTurn, { sessionId, turnId }, options);
      return createTurnHandle(caller, required(turn, "the turn"));
    },
  };
  return sessions;
}

function callOptions({ signal }: PageOptions): CallOptions {
  return { signal };
}
