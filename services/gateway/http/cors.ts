import { cors as connectCors } from "@connectrpc/connect";
import type { EdgeIncoming, EdgeResponse } from "../../runtime/edge/edge-request.ts";
import { answerEmpty } from "../rest/answer.ts";

/** How long browsers may remember a preflight's answer, in seconds: the least maximum of the engines. */
const preflightMaxAgeS = 600;

const allowedMethods = [...new Set([...connectCors.allowedMethods, "PUT", "PATCH", "DELETE"])].join(", ");

const allowedHeaders = [...connectCors.allowedHeaders, "Authorization", "Idempotency-Key", "Last-Event-ID"].join(", ");

const exposedHeaders = [
  ...connectCors.exposedHeaders,
  "Cadre-Version",
  "Retry-After",
  "WWW-Authenticate",
  "X-Request-Id",
].join(", ");

/**
 * Lets pages of the named origins call, by any protocol, without cookies. For
 * pages of others nothing is said, so browsers keep the answer from them.
 *
 * Returns what handles a request: it sets the header where it applies, and
 * answers a preflight. True if the request is answered.
 *
 * @param origins exact origins, for example `https://app.example.com`; none turns CORS off
 */
export function createCors(origins: readonly string[]): (request: EdgeIncoming, response: EdgeResponse) => boolean {
  const allowed = new Set(origins);
  if (allowed.size === 0) return () => false;
  return (request, response) => {
    // Also where the origin is another, lest a cache hands the answer on.
    response.setHeader("vary", "Origin");
    const { origin } = request.headers;
    if (origin === undefined || !allowed.has(origin)) return false;
    response.setHeader("access-control-allow-origin", origin);
    const isPreflight = request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined;
    if (!isPreflight) {
      response.setHeader("access-control-expose-headers", exposedHeaders);
      return false;
    }
    answerEmpty(response, {
      "access-control-allow-methods": allowedMethods,
      "access-control-allow-headers": allowedHeaders,
      "access-control-max-age": String(preflightMaxAgeS),
    });
    return true;
  };
}
