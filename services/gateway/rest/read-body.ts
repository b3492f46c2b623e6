import type { JsonValue } from "@bufbuild/protobuf";
import { readBody } from "../../runtime/edge/body.ts";
import type { ByteLease } from "../../runtime/edge/byte-budget.ts";
import { decompress, isEncoding } from "../../runtime/edge/compression.ts";
import type { EdgeIncoming } from "../../runtime/edge/edge-request.ts";
import { assertJsonWithinLimits } from "../../runtime/edge/json-limits.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { HttpError } from "./http-error.ts";

/**
 * Reads the JSON value of a request: UTF-8, plain or by gzip or br, at most
 * `maxBytes` before and after inflation, within the limits of JSON.
 * `undefined` if there is no body.
 *
 * @param types the content types that it may have; `application/json` unless said
 * @throws HttpError 415 for anything else
 * @throws AppError MESSAGE_TOO_LARGE, MALFORMED_MESSAGE, OVERLOADED, or DEADLINE_EXCEEDED for one that comes too slowly
 */
export async function readJson(
  request: EdgeIncoming,
  maxBytes: number,
  lease: ByteLease,
  signal: AbortSignal,
  types: readonly string[] = ["application/json"],
): Promise<JsonValue | undefined> {
  if (hasBody(request)) assertJsonType(request.headers["content-type"], types);
  const bytes = await readBody(request, { maxBytes, lease }, signal);
  if (bytes.byteLength === 0) return undefined;
  // A body of HTTP/2 need not announce itself.
  assertJsonType(request.headers["content-type"], types);
  const plain = await inflated(bytes, String(request.headers["content-encoding"] ?? "identity"), maxBytes);
  if (plain !== bytes) lease.take(plain.byteLength);
  assertJsonWithinLimits(plain);
  return JSON.parse(Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength).toString("utf8")) as JsonValue;
}

/** Whether a request has a body, as far as its header says. */
export function hasBody(request: EdgeIncoming): boolean {
  const length = request.headers["content-length"];
  return request.headers["transfer-encoding"] !== undefined || (length !== undefined && length !== "0");
}

function assertJsonType(contentType: string | undefined, types: readonly string[]): void {
  const [type = "", ...parameters] = (contentType ?? "").split(";").map((part) => part.trim().toLowerCase());
  if (!types.includes(type)) throw unsupported(`the body must be ${types.join(" or ")}`);
  for (const parameter of parameters) {
    if (!/^charset="?utf-8"?$/.test(parameter)) throw unsupported("the body must be UTF-8");
  }
}

async function inflated(bytes: Uint8Array, encoding: string, maxBytes: number): Promise<Uint8Array> {
  if (encoding === "identity") return bytes;
  if (!isEncoding(encoding)) throw unsupported("the content encoding must be gzip, br or none");
  return decompress(bytes, encoding, maxBytes);
}

function unsupported(message: string): HttpError {
  return new HttpError(415, new AppError("MALFORMED_MESSAGE", message));
}
