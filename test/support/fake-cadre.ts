import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { ApiKeyService, type Key, KeySchema, Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { HealthService, ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { type Agent, AgentSchema, AgentService } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { ModelService } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { type Tool, ToolKind, ToolSchema, ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { Code, type Interceptor } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createFakeSessionService, type FakeSessionService, fakeSessionId } from "./fake-session-service.ts";
import { createFakeToolWorkerService, failureOf } from "./fake-tool-worker-service.ts";

/** The key that the fake accepts. */
export const fakeKey = `cdr_dev_${"fake".repeat(9)}xx`;

/** A server that speaks the public contract over HTTP/1.1, with everything in memory and one session. */
export interface FakeCadre {
  readonly url: string;
  readonly sessions: FakeSessionService;
  /** Stops listening and cuts all connections; `start` again on the same port. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

/**
 * Starts the server. A message `echo X` is answered with `X`; `tool X` calls a
 * tool first; `fail` fails; `hang` goes on until it is cancelled; others are answered alike.
 */
export async function startFakeCadre(): Promise<FakeCadre> {
  const sessions = createFakeSessionService();
  sessions.onSend = (_, { text }) => answer(sessions, text);
  const handler = connectNodeAdapter({
    interceptors: [authenticate],
    routes(router) {
      router.service(SessionService, {
        ...sessions.handlers,
        getSession(request) {
          if (request.sessionId !== fakeSessionId) throw failureOf("SESSION_NOT_FOUND", Code.NotFound);
          return { session: { sessionId: fakeSessionId } };
        },
        listSessions: () => ({ sessions: [] }),
        cancelTurn() {
          sessions.append({ case: "turnEnded", value: { state: TurnState.CANCELLED, toolsMayStillRun: ["slow"] } });
          return { turns: [] };
        },
      });
      router.service(IdentityService, {
        getPrincipal: () => ({
          principal: { subject: "key_1", role: Role.OWNER, scopes: ["*"] },
          org: { orgId: "org_1", name: "Acme" },
        }),
        listLimits: () => ({ limits: [{ name: "sessions", value: 200n, defaultValue: 200n, maxValue: 10_000n }] }),
        setLimit: ({ name, value }) => ({ limit: { name, value } }),
      });
      router.service(HealthService, {
        getHealth: () => ({
          state: ServingState.SERVING,
          version: "0.1.0",
          mode: "embedded",
          services: [
            {
              service: "tools",
              state: ServingState.SERVING,
              dependencies: [{ name: "postgres", state: ServingState.SERVING }],
            },
          ],
        }),
      });
      router.service(ModelService, {
        listModels: () => ({
          models: [{ name: "scripted", provider: "scripted", contextTokens: 32768n, available: true }],
        }),
      });
      const keys: Key[] = [];
      router.service(ApiKeyService, {
        issueKey({ name, role, scopes }) {
          const key = create(KeySchema, { keyId: `key_${keys.length + 1}`, name, role, scopes, prefix: "cdr_dev_new" });
          keys.push(key);
          return { key, secret: "cdr_dev_new_secret" };
        },
        listKeys: () => ({ keys }),
        revokeKey({ keyId }) {
          const key = keys.find((candidate) => candidate.keyId === keyId);
          if (key === undefined) throw failureOf("KEY_NOT_FOUND", Code.NotFound);
          key.revokedAt = timestampNow();
          return { key };
        },
      });
      router.service(ToolWorkerService, createFakeToolWorkerService().handlers);
      const agents: Agent[] = [];
      router.service(AgentService, {
        registerAgent({ definition }) {
          const agent = create(AgentSchema, { agentId: "agt_1", revision: 1, ...(definition && { definition }) });
          agents.push(agent);
          return { agent };
        },
        listAgents: () => ({ agents }),
      });
      const tools: Tool[] = [
        create(ToolSchema, {
          toolId: `tool_${"0".repeat(26)}`,
          kind: ToolKind.BUILT_IN,
          definition: { name: "calculator", description: "Calculates.", inputSchema: { type: "object" } },
        }),
      ];
      router.service(ToolService, {
        listTools: () => ({ tools }),
        registerTool({ definition }) {
          const tool = create(ToolSchema, { toolId: "tool_2", ...(definition && { definition }) });
          tools.push(tool);
          return { tool };
        },
        async *callTool({ arguments: args }) {
          yield { part: { case: "output", value: "working\u001b[2J\n" } };
          if (args?.fail === true) {
            yield { part: { case: "error", value: { reason: Reason.TOOL_FAILED, message: "it broke" } } };
          } else {
            yield { part: { case: "result", value: { kind: { case: "numberValue", value: 42 } } } };
          }
        },
      });
    },
  });
  let server: Server | undefined;
  let port = 0;
  const fake = {
    sessions,
    url: "",
    async start() {
      const started = createServer((request, response) => {
        if (request.url !== "/health") return handler(request, response);
        response.setHeader("content-type", "application/json").end('{"status":"SERVING"}');
      });
      await new Promise<void>((resolve) => started.listen(port, "127.0.0.1", resolve));
      server = started;
      port = (started.address() as AddressInfo).port;
      fake.url = `http://127.0.0.1:${port}`;
    },
    async stop() {
      const stopped = server;
      server = undefined;
      if (stopped === undefined) return;
      stopped.closeAllConnections();
      await new Promise((resolve) => stopped.close(resolve));
    },
  };
  await fake.start();
  return fake;
}

function answer(sessions: FakeSessionService, text: string): void {
  const [verb = "", ...words] = text.trim().split(" ");
  const rest = words.join(" ");
  const delta = (value: string) =>
    ({ case: "textDelta", value: { stepId: "stp_1", attempt: 1, text: value } }) as const;
  sessions.append({ case: "turnStarted", value: { text, model: "scripted" } });
  if (verb === "hang") return sessions.append(delta("well"));
  if (verb === "fail") {
    const error = { reason: Reason.MODEL_FAILED, message: "the provider is down" };
    return sessions.append({ case: "turnEnded", value: { state: TurnState.FAILED, error } });
  }
  if (verb === "tool") {
    sessions.append(
      { case: "toolStarted", value: { stepId: "stp_0", tool: "calculator", arguments: { expression: rest } } },
      {
        case: "toolEnded",
        value: {
          stepId: "stp_0",
          tool: "calculator",
          outcome: { case: "result", value: { kind: { case: "numberValue", value: 42 } } },
        },
      },
    );
  }
  sessions.append(
    delta("void "),
    { case: "attemptDiscarded", value: { stepId: "stp_1", attempt: 1 } },
    { case: "textDelta", value: { stepId: "stp_1", attempt: 2, text: rest } },
    { case: "turnEnded", value: { state: TurnState.SUCCEEDED, answer: rest, usage: { inputTokens: 3n } } },
  );
}

const authenticate: Interceptor = (next) => (request) => {
  if (request.header.get("authorization") !== `Bearer ${fakeKey}`) {
    throw failureOf("UNAUTHENTICATED", Code.Unauthenticated);
  }
  return next(request);
};
