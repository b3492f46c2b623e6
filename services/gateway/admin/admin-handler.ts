import type { IncomingMessage, ServerResponse } from "node:http";
import { toJson } from "@bufbuild/protobuf";
import { GetHealthResponseSchema, ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { toErrorAnswer } from "../../runtime/edge/error-body.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { newId } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Health } from "../app/health.ts";
import { type CpuProfiler, maxProfileSeconds } from "./cpu-profile.ts";

export interface AdminHandlerOptions {
  readonly health: Pick<Health, "breakdown">;
  /** This process's metrics in the Prometheus text format. */
  readonly renderMetrics: () => Promise<string>;
  readonly profiler: CpuProfiler;
  readonly log: Logger;
}

interface AdminAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/**
 * Answers the machine's own operator, without a credential: whoever can reach
 * it can read the process's memory anyway. So it must not be reached from
 * elsewhere, and a page in a browser of this machine is elsewhere: requests
 * with the name of another host (a name that was made to point here), and
 * those that a browser says come from another site, are refused.
 */
export function createAdminHandler(
  options: AdminHandlerOptions,
): (request: IncomingMessage, response: ServerResponse) => void {
  const { health, renderMetrics, profiler, log } = options;

  async function answer(request: IncomingMessage, signal: AbortSignal): Promise<AdminAnswer> {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://admin");
    switch (pathname) {
      case "/metrics":
        return { status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", body: await renderMetrics() };
      case "/health": {
        const answered = await health.breakdown();
        const json = toJson(GetHealthResponseSchema, answered, { useProtoFieldName: true, alwaysEmitImplicit: true });
        const status = answered.state === ServingState.SERVING ? 200 : 503;
        return { status, contentType: "application/json; charset=utf-8", body: JSON.stringify(json) };
      }
      case "/debug/profile": {
        const seconds = Number(searchParams.get("seconds") ?? "10");
        if (!(seconds >= 1 && seconds <= maxProfileSeconds)) {
          throw new AppError("INVALID_ARGUMENT", `seconds: must be 1 to ${maxProfileSeconds}`);
        }
        log.info({ seconds }, "taking a CPU profile");
        return { status: 200, contentType: "application/json", body: await profiler.profile(seconds, signal) };
      }
      default:
        throw new AppError("ROUTE_NOT_FOUND", "the routes are /metrics, /health and /debug/profile");
    }
  }

  return (request, response) => {
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const write = ({ status, contentType, body }: AdminAnswer): void => {
      response.writeHead(status, {
        "content-type": contentType,
        "content-length": Buffer.byteLength(body),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
      });
      response.end(request.method === "HEAD" ? undefined : body);
    };
    const fail = (thrown: unknown): void => {
      const failure = toAppError(thrown);
      if (failure.reason === "INTERNAL") log.error({ err: failure.cause }, "the admin listener failed");
      const { status, body } = toErrorAnswer(failure, newId("req"));
      write({ status, contentType: "application/json; charset=utf-8", body: JSON.stringify(body) });
    };
    const refusal = refusalOf(request);
    if (refusal !== undefined) fail(refusal);
    else answer(request, gone.signal).then(write, fail);
  };
}

const loopbackHost = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?$/;

function refusalOf(request: IncomingMessage): AppError | undefined {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return new AppError("UNIMPLEMENTED", "the routes take GET and HEAD");
  }
  const site = request.headers["sec-fetch-site"];
  const isOwn = loopbackHost.test(request.headers.host ?? "") && (site === undefined || site === "none");
  return isOwn ? undefined : new AppError("CALLER_NOT_ALLOWED", "only this machine's own tools may ask");
}
