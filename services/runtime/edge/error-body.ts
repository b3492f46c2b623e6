import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToHttpStatus, codeToString } from "@connectrpc/connect/protocol-connect";
import { errorDomain, fromConnectError, toAppError, toConnectError } from "../errors/failure.ts";

/** A failure as plain HTTP says it. */
export interface ErrorAnswer {
  readonly status: number;
  /** Headers besides the body's: `retry-after`, `www-authenticate`. */
  readonly header: Readonly<Record<string, string>>;
  readonly body: ErrorBody;
}

/** The body of every failure over REST, and of the last event of a stream that failed. */
export interface ErrorBody {
  readonly error: {
    /** The HTTP status. */
    readonly code: number;
    /** The RPC code's name, for example `not_found`. */
    readonly status: string;
    /** The value of `cadre.errors.v1.Reason`, for example `SESSION_NOT_FOUND`. */
    readonly reason: string;
    /** For people. */
    readonly message: string;
    /** `google.rpc` messages as Protobuf JSON with their `@type`: what the fields around do not say. */
    readonly details: readonly JsonObject[];
    readonly request_id: string;
  };
}

/**
 * Says a failure in REST's form.
 *
 * @param thrown what the interceptors answered, or what was thrown before them
 * @param requestId used where the failure does not carry one
 */
export function toErrorAnswer(thrown: unknown, requestId: string): ErrorAnswer {
  const known = thrown instanceof ConnectError && fromConnectError(thrown) !== undefined;
  const error = known ? thrown : toConnectError(toAppError(thrown), requestId);
  const info = error.findDetails(ErrorInfoSchema).find((detail) => detail.domain === errorDomain);
  const code = codeToHttpStatus(error.code);
  const retryDelay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    status: code,
    header: {
      ...(retryDelay === undefined
        ? {}
        : { "retry-after": String(Math.max(1, Math.ceil(durationMs(retryDelay) / 1_000))) }),
      ...(error.code === Code.Unauthenticated ? { "www-authenticate": "Bearer" } : {}),
    },
    body: {
      error: {
        code,
        status: codeToString(error.code),
        reason: info?.reason ?? "INTERNAL",
        message: error.rawMessage,
        details: detailsOf(error),
        request_id: error.findDetails(RequestInfoSchema)[0]?.requestId ?? requestId,
      },
    },
  };
}

/** The details, but for what the body says already. */
function detailsOf(error: ConnectError): JsonObject[] {
  const details: JsonObject[] = [];
  for (const schema of [ErrorInfoSchema, BadRequestSchema, QuotaFailureSchema, RetryInfoSchema, HelpSchema]) {
    for (const detail of error.findDetails(schema)) {
      if (detail.$typeName === ErrorInfoSchema.typeName && Object.keys(detail.metadata).length === 0) continue;
      const json = toJson(schema, detail as never, { useProtoFieldName: true });
      details.push({ "@type": `type.googleapis.com/${schema.typeName}`, ...(json as JsonObject) });
    }
  }
  return details;
}
