import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Command, type CommandReply, CommandSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import {
  CreateSessionResponseSchema,
  SessionService,
  type Turn,
  TurnSchema,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Limits } from "../../runtime/identity/limits.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import { requestContext, requirePrincipal } from "../../runtime/rpc/request-context.ts";
import { type AgentDeps, findAgent } from "../app/agents.ts";
import type { Engine } from "../app/engine.ts";
import { streamEvents } from "../app/stream-events.ts";
import type { SessionStore } from "../store/session-store.ts";
import { fromView, toSession } from "./convert.ts";
import { pageSize } from "./page-size.ts";

export interface SessionHandlerDeps extends AgentDeps {
  readonly sessions: SessionStore;
  readonly engine: Pick<Engine, "dispatch" | "feed" | "stopping">;
  readonly limits: Limits;
  readonly pages: PageTokens;
  /** Default 15 seconds. */
  readonly keepaliveMs?: number;
}

const maxSeq = BigInt(Number.MAX_SAFE_INTEGER);
/** How large a page of turns gets, in bytes, with room below the limit of a message. */
const maxPageBytes = 3 * 1024 * 1024;
const listMethod = `${SessionService.typeName}/ListSessions`;
const turnsMethod = `${SessionService.typeName}/ListTurns`;

/** The handlers of SessionService. */
export function sessionHandlers(deps: SessionHandlerDeps): ServiceImpl<typeof SessionService> {
  const { sessions, engine, pages } = deps;
  return {
    async createSession(request, context) {
      const { orgId } = requirePrincipal(context);
      const org = toUuid("org", orgId);
      assertStorable("title", request.title);
      for (const [name, value] of Object.entries(request.labels)) assertStorable("labels", `${name}${value}`);
      const agent = await findAgent(deps, org, request.agentId, request.agent);
      const session = {
        sessionId: toUuid("ses", newId("ses")),
        agentId: toUuid("agt", agent.agentId),
        title: request.title,
        labels: request.labels,
      };
      const { idempotencyKey } = requestContext(context.values);
      const maxSessions = await deps.limits.get(orgId, "sessions");
      return await sessions.create({ orgId: org, session, maxSessions, idempotencyKey, request }, (stored) =>
        create(CreateSessionResponseSchema, { session: toSession(stored) }),
      );
    },

    async getSession({ sessionId }, context) {
      const stored = await sessions.find(orgOf(context), toUuid("ses", sessionId));
      if (stored === undefined) throw notFound();
      return { session: toSession(stored) };
    },

    async listSessions(request, context) {
      const { orgId } = requirePrincipal(context);
      const scope = { orgId, method: listMethod, filter: "" };
      const size = pageSize(request.pageSize);
      const rows = await sessions.list(toUuid("org", orgId), pages.open(scope, request.pageToken), size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1)?.sessionId;
      return {
        sessions: page.map(toSession),
        nextPageToken: rows.length > size && last !== undefined ? pages.seal(scope, last) : "",
      };
    },

    async deleteSession(request, context) {
      const reply = await dispatch(deps, context, request.sessionId, { case: "deleteSession", value: request });
      if (reply.outcome.case !== "deleteSession") throw new TypeError("a reply to another command");
      return reply.outcome.value;
    },

    async sendTurn(request, context) {
      const reply = await dispatch(deps, context, request.sessionId, { case: "sendTurn", value: request });
      if (reply.outcome.case !== "sendTurn") throw new TypeError("a reply to another command");
      return reply.outcome.value;
    },

    async getTurn({ sessionId, turnId }, context) {
      const view = await sessions.findRun(orgOf(context), toUuid("ses", sessionId), toUuid("run", turnId));
      if (view === undefined) {
        if ((await sessions.find(orgOf(context), toUuid("ses", sessionId))) === undefined) throw notFound();
        throw new AppError("TURN_NOT_FOUND", "no such turn");
      }
      return { turn: fromView(view) };
    },

    async listTurns(request, context) {
      const { orgId } = requirePrincipal(context);
      const org = toUuid("org", orgId);
      const sessionId = toUuid("ses", request.sessionId);
      const scope = { orgId, method: turnsMethod, filter: request.sessionId };
      const after = Number(pages.open(scope, request.pageToken) ?? 0);
      if ((await sessions.find(org, sessionId)) === undefined) throw notFound();
      const size = pageSize(request.pageSize);
      const rows = await sessions.listRuns(org, sessionId, after, size + 1);
      const turns: Turn[] = [];
      let bytes = 0;
      for (const row of rows.slice(0, size)) {
        const turn = fromView(row);
        bytes += toBinary(TurnSchema, turn).length;
        // A single turn always fits.
        if (turns.length > 0 && bytes > maxPageBytes) break;
        turns.push(turn);
      }
      const last = rows[turns.length - 1]?.ordinal;
      return {
        turns,
        nextPageToken: rows.length > turns.length && last !== undefined ? pages.seal(scope, String(last)) : "",
      };
    },

    async *streamEvents(request, context) {
      const position = {
        orgId: orgOf(context),
        sessionId: toUuid("ses", request.sessionId),
        // Past what any session reaches, so that the number stays exact.
        afterSeq: Number(request.afterSeq > maxSeq ? maxSeq : request.afterSeq),
      };
      const stream = streamEvents(
        { sessions, feed: engine.feed, stopping: engine.stopping, keepaliveMs: deps.keepaliveMs ?? 15_000 },
        position,
        context.signal,
      );
      for await (const event of stream) yield event === undefined ? {} : { event };
    },

    async cancelTurn(request, context) {
      const reply = await dispatch(deps, context, request.sessionId, { case: "cancelTurn", value: request });
      if (reply.outcome.case !== "cancelTurn") throw new TypeError("a reply to another command");
      return reply.outcome.value;
    },
  };
}

/** Hands a request to the owner of its session. */
async function dispatch(
  deps: SessionHandlerDeps,
  context: HandlerContext,
  sessionId: string,
  request: Command["request"],
): Promise<CommandReply> {
  const { requestId, traceparent, idempotencyKey, deadline, signal } = requestContext(context.values);
  const command = create(CommandSchema, {
    requestId,
    traceparent,
    principal: requirePrincipal(context),
    idempotencyKey,
    ...(Number.isFinite(deadline) ? { deadline: timestampFromMs(deadline) } : {}),
    request,
  });
  return await deps.engine.dispatch(sessionId, command, signal);
}

/** The UUID of the caller's org. */
function orgOf(context: HandlerContext): string {
  return toUuid("org", requirePrincipal(context).orgId);
}

/** PostgreSQL's texts hold every character but this one. */
function assertStorable(field: string, text: string): void {
  if (!text.includes("\0")) return;
  const message = "must not hold the character U+0000";
  throw new AppError("INVALID_ARGUMENT", `${field}: ${message}`, { violations: [{ field, message }] });
}

function notFound(): AppError {
  return new AppError("SESSION_NOT_FOUND", "no such session");
}
