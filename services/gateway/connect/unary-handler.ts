import { type DescMethodUnary, type Message, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createContextValues, type Transport } from "@connectrpc/connect";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { type ByteBudget, byteLeaseKey } from "../../runtime/edge/byte-budget.ts";
import { responseCompressions } from "../../runtime/edge/compression.ts";
import type { ConnectHandler } from "../../runtime/edge/connect-handler.ts";
import { type EdgeLimits, edgeLimits, messageLimits } from "../../runtime/edge/edge-limits.ts";
import { type EdgeIncoming, type EdgeResponse, edgeRequest, edgeRequestKey } from "../../runtime/edge/edge-request.ts";
import { answerTooLarge } from "../../runtime/edge/message-size.ts";
import type { OnRefused } from "../../runtime/edge/refused-call.ts";
import { assertMetadata } from "../../runtime/edge/request-metadata.ts";
import { createResponseWriter } from "../../runtime/edge/response-writer.ts";
import { assertMessageWithinLimits } from "../../runtime/edge/wire-limits.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError, toConnectError } from "../../runtime/errors/failure.ts";
import { decodeMessage } from "../../runtime/rpc/message-codec.ts";
import { setHead } from "../rest/answer.ts";
import { toHeaders } from "../rest/request-header.ts";
import { readSmallBody } from "./read-small-body.ts";

export interface UnaryHandlerOptions {
  /** The unary methods that are called through `transport`. */
  readonly methods: readonly DescMethodUnary[];
  /** Calls the methods, through the same interceptors as any other protocol. */
  readonly transport: Transport;
  /** Serves every other request. */
  readonly others: ConnectHandler;
  readonly budget: ByteBudget;
  /** Told of calls that are refused outside of the interceptors. */
  readonly onRefused: OnRefused;
  readonly limits?: EdgeLimits;
}

/** Bodies from here on are worth their compression. */
const compressFromBytes = 1_024;

/**
 * Serves the call that clients make most, Connect's unary POST of a binary
 * message that is not compressed
 * (https://connectrpc.com/docs/protocol#unary-request), without the adapter's
 * streams of streams: they cost more than all interceptors. What is checked,
 * and in which words it is refused, is as in the adapter's way; whatever is not
 * exactly such a call takes that one. Headers that a handler set before it
 * failed are dropped.
 */
export function createUnaryHandler(options: UnaryHandlerOptions): ConnectHandler {
  const { others, transport, budget, onRefused, limits = edgeLimits } = options;
  const methods = new Map(options.methods.map((method) => [`/${method.parent.typeName}/${method.name}`, method]));
  const maxBytes = messageLimits.unaryMaxBytes;

  async function serve(method: DescMethodUnary, request: EdgeIncoming, response: EdgeResponse): Promise<void> {
    const known = edgeRequest(request);
    const lease = budget.lease(known.source);
    const ended = new AbortController();
    response.once("close", () => {
      lease.release();
      if (!response.writableFinished) ended.abort(new ConnectError("the caller went away", Code.Canceled));
    });
    let message: Message;
    try {
      assertCall(request);
      const bytes = await readSmallBody(request, { maxBytes, lease, pace: limits }, ended.signal);
      assertMessageWithinLimits(method.input, bytes);
      message = decodeMessage(method.input, bytes, maxBytes);
    } catch (thrown) {
      const refusal = toAppError(thrown);
      onRefused({ ...known, path: request.url ?? "" }, refusal);
      answerError(response, toConnectError(refusal, known.requestId));
      return;
    }
    const contextValues = createContextValues().set(edgeRequestKey, known).set(byteLeaseKey, lease);
    try {
      const answered = await transport.unary(
        method,
        ended.signal,
        undefined,
        toHeaders(request),
        message,
        contextValues,
      );
      const bytes = toBinary(method.output, answered.message);
      if (bytes.byteLength > maxBytes) throw toConnectError(answerTooLarge(maxBytes), known.requestId);
      answered.header.forEach((value, name) => response.setHeader(name, value));
      answered.trailer.forEach((value, name) => response.setHeader(`trailer-${name}`, value));
      await answer(request, response, bytes);
    } catch (thrown) {
      answerError(response, toAnswer(thrown, known.requestId));
    }
  }

  return {
    serves: (target) => others.serves(target),
    handle(request, response) {
      const method = isPlainUnary(request) ? methods.get(request.url ?? "") : undefined;
      // Does not reject: what fails is answered.
      if (method === undefined) others.handle(request, response);
      else void serve(method, request, response);
    },
  };
}

function isPlainUnary({ method, headers }: EdgeIncoming): boolean {
  return (
    method === "POST" && headers["content-type"] === "application/proto" && headers["content-encoding"] === undefined
  );
}

function assertCall(request: EdgeIncoming): void {
  const { headers } = request;
  assertMetadata(headers);
  if (headers["connect-protocol-version"] !== "1") {
    throw new AppError("INVALID_METADATA", "the header connect-protocol-version must be 1");
  }
}

async function answer(request: EdgeIncoming, response: EdgeResponse, bytes: Uint8Array): Promise<void> {
  let body = bytes;
  const accepted = request.headers["accept-encoding"];
  if (bytes.byteLength >= compressFromBytes && accepted !== undefined) {
    const names = String(accepted)
      .split(",")
      .map((name) => name.trim());
    const compression = responseCompressions.find(({ name }) => names.includes(name));
    if (compression !== undefined) {
      body = await compression.compress(bytes as Uint8Array<ArrayBuffer>);
      response.setHeader("content-encoding", compression.name);
    }
  }
  end(response, 200, "application/proto", body);
}

/** The interceptors answer in the contract's form; what is not in it is a fault of ours. */
function toAnswer(thrown: unknown, requestId: string): ConnectError {
  return thrown instanceof ConnectError ? thrown : toConnectError(toAppError(thrown), requestId);
}

function answerError(response: EdgeResponse, error: ConnectError): void {
  if (response.destroyed || response.writableEnded) return;
  error.metadata.forEach((value, name) => response.setHeader(name, value));
  end(response, codeToHttpStatus(error.code), "application/json", errorToJsonBytes(error, undefined));
}

function end(response: EdgeResponse, status: number, contentType: string, body: Uint8Array): void {
  setHead(response, status, { "content-type": contentType, "content-length": String(body.byteLength) });
  createResponseWriter(response).finish({ last: body });
}
