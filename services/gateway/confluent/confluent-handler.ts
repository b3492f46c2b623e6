import type { JsonValue } from "@bufbuild/protobuf";
import { RegistryService } from "@cadre/gen/cadre/registry/v1/registry_pb";
import { Code, ConnectError, createClient, createContextValues, type Transport } from "@connectrpc/connect";
import { type ByteBudget, type ByteLease, byteLeaseKey } from "../../runtime/edge/byte-budget.ts";
import { messageLimits } from "../../runtime/edge/edge-limits.ts";
import { type EdgeIncoming, type EdgeResponse, edgeRequest, edgeRequestKey } from "../../runtime/edge/edge-request.ts";
import type { OnRefused } from "../../runtime/edge/refused-call.ts";
import { assertMetadata } from "../../runtime/edge/request-metadata.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { answerEmpty, answerWhole, setHead } from "../rest/answer.ts";
import { HttpError } from "../rest/http-error.ts";
import { hasBody, readJson } from "../rest/read-body.ts";
import { toHeaders } from "../rest/request-header.ts";
import type { ConfluentAnswer, ConfluentCall } from "./confluent-call.ts";
import { toConfluentFailure } from "./confluent-error.ts";
import { confluentRoutes } from "./confluent-routes.ts";

/** Where the API begins: clients are given `http://…/registry` as the registry's URL. */
export const confluentPrefix = "/registry";

const answerType = "application/vnd.schemaregistry.v1+json";
const bodyTypes: readonly string[] = [answerType, "application/vnd.schemaregistry+json", "application/json"];

export interface ConfluentOptions {
  /** Calls the registry, through the same interceptors as any other protocol. */
  readonly transport: Transport;
  readonly budget: ByteBudget;
  /** Told of calls that are refused outside of the interceptors. */
  readonly onRefused: OnRefused;
}

/** The registry in the form of the Confluent Schema Registry's REST API. */
export interface ConfluentHandler {
  /** Whether a target is of this API. */
  serves(target: string): boolean;
  /** Never rejects. */
  handle(request: EdgeIncoming, response: EdgeResponse): Promise<void>;
}

/**
 * Answers the REST API of the Confluent Schema Registry under `/registry`: each
 * of its routes calls a method of `RegistryService`, so authentication, scopes,
 * limits and audit are those of the contract. Besides `Bearer` it takes `Basic`,
 * as its clients send it: the password is the API key, the name is not looked at.
 */
export function createConfluentHandler({ transport, budget, onRefused }: ConfluentOptions): ConfluentHandler {
  const registry = createClient(RegistryService, transport);
  const routes = Object.entries(confluentRoutes).map(([key, run]) => {
    const [method = "", path = ""] = key.split(" ");
    return { method, segments: segmentsOf(path), run };
  });

  async function answer(request: EdgeIncoming, response: EdgeResponse): Promise<ConfluentAnswer | "answered"> {
    const [target = "", query = ""] = splitOnce((request.url ?? "").slice(confluentPrefix.length), "?");
    const path = decodePath(target);
    const found = routes.filter(({ segments }) => matches(segments, path));
    const allow = [...new Set(found.map(({ method }) => method))].join(", ");
    if (path === undefined || found.length === 0) throw new AppError("ROUTE_NOT_FOUND", "no such route");
    if (request.method === "OPTIONS") {
      answerEmpty(response, { allow });
      return "answered";
    }
    const wanted = request.method === "HEAD" ? "GET" : request.method;
    const route = found.find(({ method }) => method === wanted);
    if (route === undefined) {
      throw new HttpError(405, new AppError("UNIMPLEMENTED", `the route takes ${allow}`), { allow });
    }
    assertMetadata(request.headers);
    const known = edgeRequest(request);
    const lease = budget.lease(known.source);
    const ended = new AbortController();
    response.once("close", () => {
      if (!response.writableFinished) ended.abort(new ConnectError("the caller is gone", Code.Canceled));
    });
    try {
      const body = await readBody(request, lease, ended.signal).catch((thrown: unknown) => {
        const failure = toAppError(thrown instanceof HttpError ? thrown.failure : thrown);
        onRefused({ ...known, path: `/${RegistryService.typeName}` }, failure);
        throw thrown;
      });
      const call: ConfluentCall = {
        registry,
        options: {
          headers: withBearer(toHeaders(request)),
          signal: ended.signal,
          contextValues: createContextValues().set(edgeRequestKey, known).set(byteLeaseKey, lease),
        },
        path: (path ?? []).filter((_, index) => route.segments[index] === "{}"),
        query: new URLSearchParams(query),
        body,
      };
      return await route.run(call);
    } finally {
      lease.release();
    }
  }

  return {
    serves: (target) => target === confluentPrefix || /^\/registry[/?]/.test(target),
    async handle(request, response) {
      try {
        const answered = await answer(request, response);
        if (answered === "answered") return;
        const text = "json" in answered ? JSON.stringify(answered.json) : answered.text;
        answerWhole(request, response, { status: 200, contentType: answerType, text });
      } catch (thrown) {
        if (response.destroyed || response.writableEnded) return;
        const { requestId } = edgeRequest(request);
        const { status, header, body } = toConfluentFailure(thrown, requestId);
        setHead(response, status, { ...header, "x-request-id": requestId });
        answerWhole(request, response, { status, contentType: answerType, text: JSON.stringify(body) });
      }
    },
  };
}

async function readBody(request: EdgeIncoming, lease: ByteLease, signal: AbortSignal): Promise<JsonValue | undefined> {
  if (request.method === "POST" || request.method === "PUT") {
    return readJson(request, messageLimits.unaryMaxBytes, lease, signal, bodyTypes);
  }
  if (hasBody(request)) throw new AppError("MALFORMED_MESSAGE", "the route takes no body");
  return undefined;
}

/** `Basic` as `Bearer`: the password is the API key. */
function withBearer(headers: Headers): Headers {
  const basic = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  if (basic === undefined) return headers;
  const [, key = ""] = splitOnce(Buffer.from(basic, "base64").toString("utf8"), ":");
  headers.set("authorization", `Bearer ${/^[\x21-\x7e]+$/.test(key) ? key : "-"}`);
  return headers;
}

/** The decoded segments of a path; `undefined` if it is not spelt as one. Names may hold what paths may not, encoded. */
function decodePath(path: string): readonly string[] | undefined {
  try {
    return segmentsOf(path).map((segment) => decodeURIComponent(segment));
  } catch {
    return undefined; // not a percent-encoding, or not UTF-8
  }
}

function segmentsOf(path: string): readonly string[] {
  return path === "" || path === "/" ? [] : path.slice(1).split("/");
}

function matches(segments: readonly string[], path: readonly string[] | undefined): boolean {
  if (path?.length !== segments.length) return false;
  return segments.every((segment, index) => (segment === "{}" ? path[index] !== "" : segment === path[index]));
}

function splitOnce(text: string, separator: string): readonly [string, string] {
  const index = text.indexOf(separator);
  return index === -1 ? [text, ""] : [text.slice(0, index), text.slice(index + separator.length)];
}
