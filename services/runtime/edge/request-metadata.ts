import { AppError } from "../errors/app-error.ts";
import type { EdgeIncoming } from "./edge-request.ts";

/** Fields that a server says, never a caller. */
const reserved = new Set(["grpc-status", "grpc-message", "grpc-status-details-bin"]);

/** Fields of browsers and proxies whose values may be any text; no handler reads them. */
const foreign = new Set(["cookie", "user-agent", "referer", "via"]);

const namePattern = /^[a-z0-9_.-]+$/;
const valuePattern = /^[\x20-\x7e\t]*$/;
const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/;

/**
 * Checks a call's metadata as gRPC defines it: names of lower-case letters,
 * digits, `_`, `-`, `.`; printable ASCII values; base64 in `-bin` fields; and
 * nothing that only a server may say.
 *
 * @throws AppError INVALID_METADATA that names the field, and never a value
 */
export function assertMetadata(headers: EdgeIncoming["headers"]): void {
  for (const name in headers) {
    if (name.startsWith(":") || foreign.has(name)) continue;
    if (reserved.has(name)) throw invalid(name, "is for answers only");
    if (!namePattern.test(name)) throw invalid("a field's name", "has a character that is not allowed");
    const value = headers[name];
    for (const item of typeof value === "string" ? [value] : (value ?? [])) {
      if (!valuePattern.test(item)) throw invalid(name, "has a character that is not allowed");
      if (name.endsWith("-bin") && !item.split(",").every((part) => base64Pattern.test(part.trim()))) {
        throw invalid(name, "is not base64");
      }
    }
  }
}

function invalid(field: string, problem: string): AppError {
  return new AppError("INVALID_METADATA", `${field} ${problem}`, { violations: [{ field, message: problem }] });
}
