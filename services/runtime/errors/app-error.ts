import type { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";

/** A value of `cadre.errors.v1.Reason` by name, for example `SESSION_NOT_FOUND`. */
export type FailureReason = Exclude<keyof typeof Reason, "UNSPECIFIED">;

/** A field that breaks a rule. `field` is its path in the request, `rule` the rule's id. */
export interface FieldViolation {
  readonly field: string;
  readonly message: string;
  readonly rule?: string;
}

/** A quota or limit that refused a call. */
export interface QuotaViolation {
  readonly subject: string;
  readonly limit: string;
  readonly value: bigint;
  readonly description: string;
}

export interface AppErrorOptions {
  /** What went wrong beneath; logged, never sent to the caller. */
  readonly cause?: unknown;
  /** The request's fields that are wrong. */
  readonly violations?: readonly FieldViolation[];
  /** The limits that refused the call. */
  readonly quotas?: readonly QuotaViolation[];
  /** How long to wait before the same call may succeed, in milliseconds. */
  readonly retryAfterMs?: number;
  /** More for programs, for example `{ scope: "sessions.write" }`. Sent to the caller. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * A failure that a caller is told about, with one of the reasons of the
 * contract. The message is sent as it is: it names what and where, and never
 * holds a secret, a prompt or another tenant's data.
 *
 * Anything else that is thrown is a bug, and answered as `INTERNAL`.
 */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly reason: FailureReason;
  readonly violations: readonly FieldViolation[];
  readonly quotas: readonly QuotaViolation[];
  readonly retryAfterMs: number | undefined;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(reason: FailureReason, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.violations = options.violations ?? [];
    this.quotas = options.quotas ?? [];
    this.retryAfterMs = options.retryAfterMs;
    this.metadata = options.metadata ?? {};
  }
}
