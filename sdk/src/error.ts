import { getOption } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Reason, ReasonSchema } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { type Failure, failure } from "@cadre/gen/cadre/options/v1/options_pb";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError } from "@connectrpc/connect";

/**
 * Why a call failed: a closed list, which is the contract's
 * (`cadre.errors.v1.Reason` without its prefix). `switch` over it.
 */
export type CadreErrorReason = Exclude<keyof typeof Reason, "UNSPECIFIED">;

/** A field of the request that breaks a rule. */
export interface CadreViolation {
  /** The field's path, for example `definition.name`. */
  readonly field: string;
  /** What is wrong with it, for people. */
  readonly message: string;
  /** The rule's id, for programs; empty if it has none. */
  readonly rule: string;
}

/** A limit that refused the call. */
export interface CadreQuotaViolation {
  /** The limit's name, as `cadre.limits` lists it. */
  readonly limit: string;
  /** Its value. */
  readonly value: bigint;
  /** Whom it limits, for example `org`. */
  readonly subject: string;
  /** More about it, for people. */
  readonly message: string;
}

/** What a `CadreError` is made from. */
export interface CadreErrorInit {
  /** The `google.rpc.Code`; the reason's own if it is left out. */
  readonly code?: number;
  readonly requestId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly violations?: readonly CadreViolation[];
  readonly quotas?: readonly CadreQuotaViolation[];
  readonly metadata?: Readonly<Record<string, string>>;
  readonly remedy?: string;
  readonly cause?: unknown;
}

/**
 * Every failure of a call is one of these: what the server answered, and what
 * happened to the connection (`UNAVAILABLE`), the deadline
 * (`DEADLINE_EXCEEDED`) or the caller's signal (`CANCELLED`). Wrong use of the
 * SDK itself, such as a base URL that is none, throws `TypeError`.
 *
 * @example
 * ```ts
 * try {
 *   await cadre.sessions.send(sessionId, "and now?");
 * } catch (error) {
 *   if (error instanceof CadreError && error.reason === "SESSION_BUSY") await cadre.sessions.cancel(sessionId);
 *   else throw error;
 * }
 * ```
 */
export class CadreError extends Error {
  override readonly name: string = "CadreError";
  /** Why, from the contract's closed list. */
  readonly reason: CadreErrorReason;
  /** The `google.rpc.Code` of the answer, for example 5 for not found. */
  readonly code: number;
  /** The request's id, `req_…`, which the server's log has, too; `undefined` if the call got no answer. */
  readonly requestId: string | undefined;
  /** How long to wait before the same call may succeed, in milliseconds, if the server said so. */
  readonly retryAfterMs: number | undefined;
  /** The request's fields that are wrong; empty unless the reason is `INVALID_ARGUMENT` or alike. */
  readonly violations: readonly CadreViolation[];
  /** The limits that refused the call; empty unless one did. */
  readonly quotas: readonly CadreQuotaViolation[];
  /** More for programs, for example `{ scope: "sessions.write" }`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** What can be done about it, in a sentence; empty if there is no general advice. */
  readonly remedy: string;
  /** Whether the same call may succeed later without a change. */
  readonly retryable: boolean;

  constructor(reason: CadreErrorReason, message: string, init: CadreErrorInit = {}) {
    super(message, init.cause === undefined ? undefined : { cause: init.cause });
    const declared = failureOf(reason);
    this.reason = reason;
    this.code = init.code ?? declared.code;
    this.requestId = init.requestId;
    this.retryAfterMs = init.retryAfterMs;
    this.violations = init.violations ?? [];
    this.quotas = init.quotas ?? [];
    this.metadata = init.metadata ?? {};
    this.remedy = init.remedy ?? declared.remedy;
    this.retryable = declared.retryable;
  }
}

const failures: ReadonlyMap<string, Failure> = new Map(
  ReasonSchema.values
    .filter((value) => value.number !== 0)
    .map((value) => [value.localName, getOption(value, failure)]),
);

function failureOf(reason: CadreErrorReason): Failure {
  const found = failures.get(reason);
  if (found === undefined) throw new TypeError(`reason ${reason} is not in the contract`);
  return found;
}

function isReason(text: string): text is CadreErrorReason {
  return failures.has(text);
}

/** The name of a reason in a message, such as `TurnError.reason`; `INTERNAL` for one that this build does not know. */
export function reasonName(reason: Reason): CadreErrorReason {
  const name = ReasonSchema.value[reason]?.localName;
  return name !== undefined && isReason(name) ? name : "INTERNAL";
}

/** The number of a reason in a message. */
export function reasonNumber(reason: CadreErrorReason): Reason {
  const value = ReasonSchema.values.find((candidate) => candidate.localName === reason);
  if (value === undefined) throw new TypeError(`reason ${reason} is not in the contract`);
  return value.number;
}

// What a status means that came without a reason of ours: from a proxy, from
// the runtime's fetch, or from a server newer than this SDK.
const reasonByCode: ReadonlyMap<Code, CadreErrorReason> = new Map([
  [Code.Canceled, "CANCELLED"],
  [Code.InvalidArgument, "INVALID_ARGUMENT"],
  [Code.DeadlineExceeded, "DEADLINE_EXCEEDED"],
  [Code.NotFound, "ROUTE_NOT_FOUND"],
  [Code.AlreadyExists, "ALREADY_EXISTS"],
  [Code.PermissionDenied, "CALLER_NOT_ALLOWED"],
  [Code.ResourceExhausted, "OVERLOADED"],
  [Code.Aborted, "UNAVAILABLE"],
  [Code.Unimplemented, "UNIMPLEMENTED"],
  [Code.Unavailable, "UNAVAILABLE"],
  [Code.Unauthenticated, "UNAUTHENTICATED"],
  // A frame that was cut in the middle; connect-web calls it data loss.
  [Code.DataLoss, "UNAVAILABLE"],
]);

/**
 * Turns whatever a transport threw into a `CadreError`.
 *
 * @param signal the caller's; when it has aborted, the result is `CANCELLED`
 *   and its `cause` the signal's reason
 */
export function toCadreError(thrown: unknown, signal?: AbortSignal): CadreError {
  if (thrown instanceof CadreError) return thrown;
  if (signal?.aborted === true) {
    return new CadreError("CANCELLED", "the call was cancelled", { cause: signal.reason });
  }
  const error = ConnectError.from(thrown);
  const requestId = error.findDetails(RequestInfoSchema)[0]?.requestId;
  const info = error.findDetails(ErrorInfoSchema).find((detail) => detail.domain === "cadre.dev");
  if (info === undefined || !isReason(info.reason)) {
    // `fetch` rejects with a TypeError, which connect-web wraps as Unknown, like
    // a stream that ended without its last frame and a proxy's plain HTTP 500. A
    // Cadre never answers Unknown.
    const broken = error.code === Code.Unknown;
    const reason = broken ? "UNAVAILABLE" : (reasonByCode.get(error.code) ?? "INTERNAL");
    const code = broken ? Code.Unavailable : error.code;
    const message = broken ? `the connection failed: ${describeFault(error)}` : error.rawMessage;
    return new CadreError(reason, message, { code, requestId, cause: thrown });
  }
  const retryDelay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const help = error.findDetails(HelpSchema)[0]?.links[0]?.description;
  return new CadreError(info.reason, error.rawMessage, {
    code: error.code,
    requestId,
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
        message: description,
        limit: quotaId,
        value: quotaValue,
      })),
    ...(help === undefined ? {} : { remedy: help }),
    cause: thrown,
  });
}

/** What `fetch` says is often only "fetch failed"; the cause beneath names the trouble. */
function describeFault(error: ConnectError): string {
  const beneath = error.cause instanceof Error ? error.cause.cause : undefined;
  if (beneath instanceof Error && beneath.message !== "") return beneath.message;
  return error.rawMessage;
}
