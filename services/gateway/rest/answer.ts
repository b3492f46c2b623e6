import type { OutgoingHttpHeaders } from "node:http";
import { type EdgeIncoming, type EdgeResponse, edgeRequest } from "../../runtime/edge/edge-request.ts";
import { toErrorAnswer } from "../../runtime/edge/error-body.ts";
import { createResponseWriter } from "../../runtime/edge/response-writer.ts";
import { HttpError } from "./http-error.ts";

/** The content type of what is JSON. */
export const jsonType = "application/json; charset=utf-8";

/** Sets status and header; what the edge set before stays. */
export function setHead(response: EdgeResponse, status: number, header: OutgoingHttpHeaders): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries(header)) {
    if (value !== undefined) response.setHeader(name, value as string | readonly string[]);
  }
}

/** Answers without a body. */
export function answerEmpty(response: EdgeResponse, header: OutgoingHttpHeaders): void {
  setHead(response, 204, header);
  createResponseWriter(response).finish();
}

/** Writes an answer that is whole; of one to `HEAD` the header only. */
export function answerWhole(
  request: EdgeIncoming,
  response: EdgeResponse,
  { status, contentType, text }: { readonly status: number; readonly contentType: string; readonly text: string },
): void {
  const last = Buffer.from(text);
  setHead(response, status, { "content-type": contentType, "content-length": String(last.byteLength) });
  createResponseWriter(response).finish(request.method === "HEAD" ? {} : { last });
}

/**
 * Answers a failure in REST's form, whatever was thrown. Ends the connection
 * where an answer has begun already.
 */
export function answerError(request: EdgeIncoming, response: EdgeResponse, thrown: unknown): void {
  if (response.destroyed || response.writableEnded) return;
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const own = thrown instanceof HttpError ? thrown : undefined;
  const { status, header, body } = toErrorAnswer(own?.failure ?? thrown, edgeRequest(request).requestId);
  const code = own?.status ?? status;
  setHead(response, code, { ...header, ...own?.header, "x-request-id": body.error.request_id });
  const text = JSON.stringify({ error: { ...body.error, code } });
  answerWhole(request, response, { status: code, contentType: jsonType, text });
}
