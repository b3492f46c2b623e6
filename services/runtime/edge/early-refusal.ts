import { errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import type { AppError } from "../errors/app-error.ts";
import { toConnectError } from "../errors/failure.ts";
import { type EdgeIncoming, type EdgeResponse, edgeRequest } from "./edge-request.ts";
import { toErrorAnswer } from "./error-body.ts";

/**
 * Answers a failure before any handler has looked at the request, in the form
 * that its header asks for: gRPC's trailers, Connect's error, or else plain
 * HTTP's. Closes a connection of HTTP/1.1, as the body is not read.
 *
 * @param status of HTTP, where that has one of its own; gRPC is answered 200
 */
export function answerEarly(request: EdgeIncoming, response: EdgeResponse, status: number, failure: AppError): void {
  const { requestId } = edgeRequest(request);
  const contentType = request.headers["content-type"] ?? "";
  if (request.httpVersionMajor === 1) response.setHeader("connection", "close");
  if (contentType.startsWith("application/grpc")) {
    const type = contentType.startsWith("application/grpc-web") ? "application/grpc-web+proto" : "application/grpc";
    setTrailerStatus(new Headers(), toConnectError(failure, requestId)).forEach((value, name) =>
      response.setHeader(name, value),
    );
    end(response, 200, type, "");
    return;
  }
  if (request.headers["connect-protocol-version"] !== undefined) {
    end(response, status, "application/json", errorToJsonBytes(toConnectError(failure, requestId), undefined));
    return;
  }
  const { body } = toErrorAnswer(failure, requestId);
  end(response, status, "application/json; charset=utf-8", JSON.stringify({ error: { ...body.error, code: status } }));
}

function end(response: EdgeResponse, status: number, contentType: string, body: Uint8Array | string): void {
  response.statusCode = status;
  response.setHeader("content-type", contentType);
  // The two classes share the method, but not its overloads.
  (response as { end(body: Uint8Array | string): unknown }).end(body);
}
