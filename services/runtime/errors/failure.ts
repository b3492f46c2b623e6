import { create, getOption } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { Reason, ReasonSchema } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { failure } from "@cadre/gen/cadre/options/v1/options_pb";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { AppError, type FailureReason } from "./app-error.ts";

/** The `google.rpc.ErrorInfo.domain` of every reason of the contract. */
export const errorDomain = "cadre.dev";

/** What a reason means on the wire, as `cadre.options.v1.failure` declares it. */
export interface Failure {
  readonly code: Code;
  readonly remedy: string;
  readonly retryable: boolean;
}

const failures: ReadonlyMap<string, Failure> = new Map(
  ReasonSchema.values
    .filter((value) => value.number !== 0)
    .map((value) => {
      const { code, remedy, retryable } = getOption(value, failure);
      return [value.localName, { code: code as Code, remedy, retryable }];
    }),
);

/** Looks a reason up in the contract. */
export function failureOf(reason: FailureReason): Failure {
  const found = failures.get(reason);
  if (found === undefined) throw new TypeError(`reason ${reason} is not in the contract`);
  return found;
}

/** Whether a text is a reason of the contract. */
export function isFailureReason(text: string): text is FailureReason {
  return failures.has(text);
}

/** The contract's number of a reason. */
export function reasonNumber(reason: FailureReason): Reason {
  return Reason[reason];
}

/** The reason of a contract's number; `INTERNAL` for one that this build does not know. */
export function reasonName(number: Reason): FailureReason {
  const name = ReasonSchema.value[number]?.localName;
  return name !== undefined && isFailureReason(name) ? name : "INTERNAL";
}

/**
 * Encodes a failure for the wire: the reason's code, and `google.rpc` details
 * (ErrorInfo and RequestInfo always; Help, BadRequest, QuotaFailure and
 * RetryInfo where they apply).
 */
export function toConnectError(error: AppError, requestId: string): ConnectError {
  const { code, remedy } = failureOf(error.reason);
  const result = new ConnectError(error.message, code, undefined, undefined, error.cause);
  result.details.push({
    desc: ErrorInfoSchema,
    value: create(ErrorInfoSchema, { reason: error.reason, domain: errorDomain, metadata: { ...error.metadata } }),
  });
  result.details.push({ desc: RequestInfoSchema, value: create(RequestInfoSchema, { requestId }) });
  if (remedy !== "") {
    result.details.push({ desc: HelpSchema, value: create(HelpSchema, { links: [{ description: remedy }] }) });
  }
  if (error.violations.length > 0) {
    const fieldViolations = error.violations.map((violation) => ({
      field: violation.field,
      description: violation.message,
      reason: violation.rule ?? "",
    }));
    result.details.push({ desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations }) });
  }
  if (error.quotas.length > 0) {
    const violations = error.quotas.map((quota) => ({
      subject: quota.subject,
      description: quota.description,
      quotaId: quota.limit,
      quotaValue: quota.value,
    }));
    result.details.push({ desc: QuotaFailureSchema, value: create(QuotaFailureSchema, { violations }) });
  }
  if (error.retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(error.retryAfterMs);
    result.details.push({ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay }) });
  }
  return result;
}

/**
 * Rebuilds the failure that a peer answered. `undefined` if the error carries
 * no reason of the contract.
 */
export function fromConnectError(error: ConnectError): AppError | undefined {
  const info = error.findDetails(ErrorInfoSchema).find((detail) => detail.domain === errorDomain);
  if (info === undefined || !isFailureReason(info.reason)) return undefined;
  const retryDelay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return new AppError(info.reason, error.rawMessage, {
    cause: error,
    metadata: info.metadata,
    retryAfterMs: retryDelay === undefined ? undefined : durationMs(retryDelay),
    violations: error
      .findDetails(BadRequestSchema)
      .flatMap((detail) => detail.fieldViolations)
      .map(({ field, description, reason }) => ({ field, message: description, rule: reason })),
    quotas: error
      .findDetails(QuotaFailureSchema)
      .flatMap((detail) => detail.violations)
      .map(({ subject, description, quotaId, quotaValue }) => ({
        subject,
        description,
        limit: quotaId,
        value: quotaValue,
      })),
  });
}

const reasonByCode: ReadonlyMap<Code, FailureReason> = new Map([
  // Of services by others, such as health: theirs to look up, and not there.
  [Code.NotFound, "ROUTE_NOT_FOUND"],
  [Code.Canceled, "CANCELLED"],
  [Code.DeadlineExceeded, "DEADLINE_EXCEEDED"],
  [Code.Unavailable, "UNAVAILABLE"],
  [Code.Unimplemented, "UNIMPLEMENTED"],
  [Code.ResourceExhausted, "MESSAGE_TOO_LARGE"],
]);

/**
 * Turns whatever was thrown into a failure. What is no failure of the contract
 * and no transport error with a plain meaning is a bug: `INTERNAL`, with the
 * thrown value as its cause.
 */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof ConnectError) {
    const known = fromConnectError(thrown);
    if (known !== undefined) return known;
    const reason = reasonByCode.get(thrown.code);
    if (reason !== undefined) return new AppError(reason, thrown.rawMessage, { cause: thrown });
  }
  if (thrown instanceof Error && thrown.name === "AbortError") {
    return new AppError("CANCELLED", "the call was cancelled", { cause: thrown });
  }
  return new AppError("INTERNAL", "internal error", { cause: thrown });
}
