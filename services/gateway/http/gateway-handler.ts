import type { ConnectHandler } from "../../runtime/edge/connect-handler.ts";
import type { EdgeHandler, EdgeIncoming, EdgeResponse } from "../../runtime/edge/edge-request.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Health } from "../app/health.ts";
import type { ConfluentHandler } from "../confluent/confluent-handler.ts";
import { answerEmpty, answerError, answerWhole, jsonType } from "../rest/answer.ts";
import { HttpError } from "../rest/http-error.ts";
import type { RestHandler } from "../rest/rest-handler.ts";
import { createCors } from "./cors.ts";

export interface GatewayHandlerOptions {
  /** Connect, gRPC and gRPC-Web. */
  readonly connect: ConnectHandler;
  /** The schema registry in Confluent's form. */
  readonly confluent: ConfluentHandler;
  readonly rest: RestHandler;
  readonly health: Pick<Health, "serves">;
  /** The OpenAPI document as JSON. */
  readonly openapi: () => Promise<string>;
  readonly version: string;
  /** Exact origins whose pages may call; none by default. */
  readonly corsOrigins: readonly string[];
}

/** A page of the gateway itself, which needs no method of the contract. */
type Page = () => Promise<{ readonly status: number; readonly body: string }>;

/**
 * Everything that the public port answers: methods by Connect, gRPC and
 * gRPC-Web, the routes of the contract, the schema registry in Confluent's form,
 * and three pages that strangers may
 * read. Each answer says the version in `cadre-version`.
 */
export function createGatewayHandler(options: GatewayHandlerOptions): EdgeHandler {
  const { connect, confluent, rest, health, openapi, version } = options;
  const cors = createCors(options.corsOrigins);
  const root = JSON.stringify({ name: "cadre", version, openapi: "/openapi.json" });
  const pages: ReadonlyMap<string, Page> = new Map<string, Page>([
    ["/", async () => ({ status: 200, body: root })],
    [
      "/health",
      async () =>
        (await health.serves())
          ? { status: 200, body: '{"status":"SERVING"}' }
          : { status: 503, body: '{"status":"NOT_SERVING"}' },
    ],
    ["/openapi.json", async () => ({ status: 200, body: await openapi() })],
  ]);
  return (request, response) => {
    response.setHeader("cadre-version", version);
    if (cors(request, response)) return;
    const target = request.url ?? "";
    if (connect.serves(target)) {
      connect.handle(request, response);
      return;
    }
    if (confluent.serves(target)) {
      // Does not reject: what fails is answered.
      void confluent.handle(request, response);
      return;
    }
    const page = pages.get(target.split("?", 1)[0] ?? "");
    // Neither rejects: what fails is answered.
    if (page === undefined) void rest(request, response);
    else void answerPage(page, request, response);
  };
}

async function answerPage(page: Page, request: EdgeIncoming, response: EdgeResponse): Promise<void> {
  const allow = "GET, HEAD, OPTIONS";
  try {
    switch (request.method) {
      case "GET":
      case "HEAD": {
        const { status, body } = await page();
        answerWhole(request, response, { status, contentType: jsonType, text: body });
        return;
      }
      case "OPTIONS":
        answerEmpty(response, { allow });
        return;
      default:
        throw new HttpError(405, new AppError("UNIMPLEMENTED", `the route takes ${allow}`), { allow });
    }
  } catch (thrown) {
    answerError(request, response, thrown);
  }
}
