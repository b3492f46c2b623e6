import type { AppError } from "../../runtime/errors/app-error.ts";

/**
 * A failure that HTTP has a status of its own for, which no RPC code maps to:
 * 405 and 415.
 */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  /** What the body says. */
  readonly failure: AppError;
  readonly header: Readonly<Record<string, string>>;

  constructor(status: number, failure: AppError, header: Readonly<Record<string, string>> = {}) {
    super(failure.message, { cause: failure });
    this.status = status;
    this.failure = failure;
    this.header = header;
  }
}
