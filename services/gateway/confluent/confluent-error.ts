import { toErrorAnswer } from "../../runtime/edge/error-body.ts";
import type { AppError, FailureReason } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { HttpError } from "../rest/http-error.ts";

/** A failure in the form of the Confluent Schema Registry. */
export interface ConfluentFailure {
  readonly status: number;
  readonly header: Readonly<Record<string, string>>;
  readonly body: {
    /** The status, or five digits that begin with it. */
    readonly error_code: number;
    readonly message: string;
  };
}

/** A failure that only this form of the registry has. */
export class ConfluentError extends Error {
  override readonly name = "ConfluentError";
  readonly errorCode: number;

  /** @param errorCode the HTTP status, or five digits that begin with it */
  constructor(errorCode: number, message: string) {
    super(message);
    this.errorCode = errorCode;
  }
}

/** https://docs.confluent.io/platform/current/schema-registry/develop/api.html */
const codes: ReadonlyMap<FailureReason, number> = new Map([
  ["SUBJECT_NOT_FOUND", 40401],
  ["SCHEMA_VERSION_NOT_FOUND", 40402],
  ["SCHEMA_NOT_FOUND", 40403],
  ["SCHEMA_INCOMPATIBLE", 409],
  ["INVALID_SCHEMA", 42201],
  ["REGISTRY_READ_ONLY", 42205],
  ["SCHEMA_REFERENCED", 42206],
  // Not 429, after which clients send the same again.
  ["MESSAGE_TOO_LARGE", 42209],
]);

/** What is deleted, or is not; see `app/delete-versions.ts` of the registry. */
const deletionCodes: Readonly<Record<string, number>> = {
  subject_deleted: 40404,
  subject_not_deleted: 40405,
  version_deleted: 40406,
  version_not_deleted: 40407,
};

/** Says whatever was thrown as the Confluent Schema Registry would. */
export function toConfluentFailure(thrown: unknown, requestId: string): ConfluentFailure {
  if (thrown instanceof ConfluentError) {
    return answer(thrown.errorCode, thrown.message, {});
  }
  const http = thrown instanceof HttpError ? thrown : undefined;
  const { status, header, body } = toErrorAnswer(http?.failure ?? thrown, requestId);
  const code = http?.status ?? codeOf(toAppError(thrown)) ?? status;
  return answer(code, body.error.message, { ...header, ...http?.header });
}

function answer(code: number, message: string, header: Readonly<Record<string, string>>): ConfluentFailure {
  const status = code > 999 ? Math.floor(code / 100) : code;
  return { status, header, body: { error_code: code, message } };
}

function codeOf({ reason, metadata, violations }: AppError): number | undefined {
  if (reason === "SCHEMA_DELETION") return deletionCodes[metadata["state"] ?? ""];
  if (reason === "INVALID_ARGUMENT") {
    if (violations.some(({ field }) => field === "subject")) return 42208;
    return violations.some(({ rule }) => rule === "string.max_bytes") ? 42209 : 422;
  }
  return codes.get(reason);
}
