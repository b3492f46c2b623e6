/**
 * The process that the attacks go against: an edge server as the gateway starts
 * it, with services of the contract behind it whose handlers do as they are
 * told. It watches itself and reports to the test that forked it.
 */

import {
  type GetSessionRequest,
  type ListTurnsRequest,
  type SendTurnRequest,
  SessionService,
  type StreamEventsRequest,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ServerReflection } from "@cadre/gen/grpc/reflection/v1/reflection_pb";
import type { HandlerContext } from "@connectrpc/connect";
import { type ConnectRouter, createClient, createRouterTransport } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import { pino } from "pino";
import { loadContract } from "../../services/gateway/contract/load-contract.ts";
import { createGateway } from "../../services/gateway/create-gateway.ts";
import { createByteBudget } from "../../services/runtime/edge/byte-budget.ts";
import { createConnectHandler } from "../../services/runtime/edge/connect-handler.ts";
import { edgeLimits } from "../../services/runtime/edge/edge-limits.ts";
import type { EdgeHandler } from "../../services/runtime/edge/edge-request.ts";
import { createEdgeServer } from "../../services/runtime/edge/edge-server.ts";
import { deadline } from "../../services/runtime/interceptor/deadline.ts";
import { errors } from "../../services/runtime/interceptor/errors.ts";
import { limits as callLimits } from "../../services/runtime/interceptor/limits.ts";
import { telemetry } from "../../services/runtime/interceptor/telemetry.ts";
import { type Implementation, implement } from "../../services/runtime/rpc/implementation.ts";
import type { TargetOptions, TargetReport } from "./target.ts";

const options: TargetOptions = JSON.parse(process.argv[2] ?? "{}");
const unhandled: string[] = [];
const warnings: string[] = [];
const lines: string[] = [];
process.on("uncaughtException", (error) => unhandled.push(String(error.stack)));
process.on("unhandledRejection", (reason) => unhandled.push(String((reason as Error)?.stack ?? reason)));
process.on("warning", (warning) => warnings.push(warning.name));

// How long the event loop was held, in this thread's own CPU time: what others do to the machine does not count.
let maxStallMs = 0;
let cpuBefore = process.threadCpuUsage();
setInterval(() => {
  const { user, system } = process.threadCpuUsage(cpuBefore);
  cpuBefore = process.threadCpuUsage();
  maxStallMs = Math.max(maxStallMs, (user + system) / 1_000);
}, 5).unref();
let maxRssBytes = 0;
setInterval(() => {
  maxRssBytes = Math.max(maxRssBytes, process.memoryUsage.rss());
}, 5).unref();

let entered = 0;
let streamed = 0;
const log = pino({ level: "debug" }, { write: (line: string) => lines.push(line) });
const limits = { ...edgeLimits, ...options.limits };
const budget = createByteBudget(limits);
const implementations: readonly Implementation[] = [
  implement(SessionService, {
    getSession: (request: GetSessionRequest) => ({
      session: { sessionId: request.sessionId, title: "x".repeat(2_000) },
    }),
    listTurns: (request: ListTurnsRequest) => ({ nextPageToken: String(request.pageSize) }),
    async sendTurn(request: SendTurnRequest, context: HandlerContext) {
      entered += 1;
      switch (request.sessionId) {
        case "throws an error":
          throw new Error("postgres://u:p@h/db");
        case "throws a string":
          throw "postgres://u:p@h/db";
        case "rejects with undefined":
          return Promise.reject();
        case "rejects in a timer":
          setTimeout(() => void Promise.reject(new Error("postgres://u:p@h/db")), 0);
          break;
        case "says its headers":
          return { turn: { text: JSON.stringify([...context.requestHeader]) } };
        case "waits":
          await new Promise((resolve) => context.signal.addEventListener("abort", resolve, { once: true }));
      }
      return { turn: { text: String(request.text.length) } };
    },
    async *streamEvents(request: StreamEventsRequest, context: HandlerContext) {
      entered += 1;
      const count = Number(request.afterSeq);
      const text = "e".repeat(1_000);
      for (let seq = 1; seq <= count && !context.signal.aborted; seq++) {
        streamed += 1;
        yield { event: { seq: BigInt(seq), body: { case: "textDelta", value: { text } } } };
      }
      if (request.sessionId === "throws at the end") throw new Error("postgres://u:p@h/db");
    },
  } as unknown as Parameters<typeof implement<typeof SessionService>>[1]),
  implement(ToolService, {
    async *callTool(request: { arguments?: Record<string, unknown> }) {
      entered += 1;
      yield { part: { case: "output", value: String(Object.keys(request.arguments ?? {}).length) } };
    },
  } as unknown as Parameters<typeof implement<typeof ToolService>>[1]),
  implement(ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) yield { validHost: request.host };
    },
  }),
];
const handler = options.door === "gateway" ? await gatewayDoor() : edgeDoor();
const server = await createEdgeServer({
  listen: { host: "127.0.0.1", port: 0 },
  log,
  limits,
  // What the attacks call it.
  authorities: ["a", "127.0.0.1"],
  handler,
  ...(options.tls === undefined ? {} : { tls: options.tls }),
});

function edgeDoor(): EdgeHandler {
  return createConnectHandler({ log, limits, budget, interceptors: [], implementations }).handle;
}

/**
 * The gateway as it is put together, before services in memory. Only what
 * decides who may call, and the contract's rules of fields, is left out: the
 * attacks are on what comes before.
 */
async function gatewayDoor(): Promise<EdgeHandler> {
  const contract = await loadContract();
  const behind = createRouterTransport(({ service }: ConnectRouter) => {
    for (const { service: served, handlers } of implementations) service(served, handlers);
  });
  const meter = metrics.getMeter("target");
  return createGateway({
    contract,
    client: (_, service) => createClient(service, behind),
    readiness: () => ({ getReadiness: () => Promise.reject(new Error("nobody asks")) }),
    interceptors: [
      telemetry({ host: "gateway", plane: "edge", tracer: trace.getTracer("target"), meter, log }),
      errors(log),
      deadline(),
      callLimits(),
    ],
    own: implementations.filter(({ service }) => service.typeName === ServerReflection.typeName),
    log,
    version: "0",
    mode: "embedded",
    renderMetrics: async () => "",
    limits,
    budget,
  }).handler;
}

process.on("message", (message: { readonly ask: "report" | "reset" }) => {
  if (message.ask === "reset") {
    maxStallMs = 0;
    cpuBefore = process.threadCpuUsage();
    maxRssBytes = process.memoryUsage.rss();
  }
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  const report: TargetReport = {
    heldBytes: heapUsed + external,
    unhandled,
    warnings,
    lines,
    entered,
    streamed,
    stats: server.stats(),
    inFlightBytes: budget.used,
    maxStallMs,
    rssBytes: process.memoryUsage.rss(),
    maxRssBytes,
  };
  process.send?.(report);
});
process.on("disconnect", () => process.exit(0));
process.send?.({ port: server.port });
