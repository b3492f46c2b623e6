import { type DescMessage, fromJson, type JsonReadOptions, type JsonValue } from "@bufbuild/protobuf";
import { isFieldError } from "@bufbuild/protobuf/reflect";
import { AppError } from "../errors/app-error.ts";
import { assertJsonWithinLimits } from "./json-limits.ts";

/** Unknown fields are ignored, as the Connect protocol does by default, so that newer clients can speak to us. */
export const jsonReadOptions: Partial<JsonReadOptions> = Object.freeze({ ignoreUnknownFields: true });

/**
 * Checks that bytes are the JSON form of a message, within the limits of JSON.
 *
 * @throws AppError MALFORMED_MESSAGE that names the field where it can, and never a value
 */
export function assertJsonMessage(desc: DescMessage, bytes: Uint8Array): void {
  assertJsonWithinLimits(bytes);
  const json = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")) as JsonValue;
  try {
    fromJson(desc, json, jsonReadOptions);
  } catch (error) {
    throw jsonMismatch(error);
  }
}

/**
 * The failure of a JSON value that `fromJson` refused. Its own message shows
 * the value, so it is left out.
 */
export function jsonMismatch(error: unknown): AppError {
  const cause = error instanceof Error && isFieldError(error.cause) ? error.cause : error;
  if (!isFieldError(cause)) {
    return new AppError("MALFORMED_MESSAGE", "the JSON text does not match the message", { cause: error });
  }
  const { name } = cause.field();
  return new AppError("MALFORMED_MESSAGE", `the field ${name} does not match its type`, {
    violations: [{ field: name, message: "does not match its type" }],
  });
}
