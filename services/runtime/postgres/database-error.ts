import pg from "pg";
import { AppError } from "../errors/app-error.ts";

/** How long a caller waits before it tries again, in milliseconds: a crashed server is back within a second or two. */
const retryAfterMs = 1_000;

/**
 * Why a statement gave no answer. `sent` says whether PostgreSQL may have
 * executed it all the same.
 */
export class ConnectionLostError extends Error {
  override readonly name = "ConnectionLostError";
  readonly sent: boolean;

  constructor(sent: boolean, cause: unknown) {
    super("the connection to PostgreSQL was lost", { cause });
    this.sent = sent;
  }
}

/**
 * SQLSTATEs that pass: nothing is wrong with the statement, and the same one
 * may succeed a little later.
 */
const passing: ReadonlyMap<string, string> = new Map([
  ["25P03", "the transaction waited too long for its next statement"],
  ["40001", "the transaction met another one"],
  ["40P01", "the transaction met another one"],
  ["53000", "the database is short of resources"],
  ["53100", "the database's disk is full"],
  ["53200", "the database is out of memory"],
  ["53300", "the database has no connection left"],
  ["55P03", "a lock of the database was not free in time"],
  ["57014", "the statement took too long"],
  ["57P03", "the database is starting"],
]);

/**
 * Makes a failure of what node-postgres threw: UNAVAILABLE for what passes,
 * DATA_LOSS for damage that PostgreSQL found in its files. Another
 * answer of PostgreSQL that says that the statement is wrong (a constraint, a
 * syntax error) is returned as it is, for the store to interpret; so is a bug,
 * such as a parameter that cannot be encoded.
 *
 * @param sent whether PostgreSQL may have executed what failed
 */
export function toDatabaseError(thrown: unknown, sent: boolean): unknown {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof pg.DatabaseError) {
    const code = thrown.code ?? "";
    const message = passing.get(code);
    if (message !== undefined) return new AppError("UNAVAILABLE", message, { cause: thrown, retryAfterMs });
    // A page or an index whose checksum or structure is wrong: never an empty answer, and nothing to try again.
    if (code === "XX001" || code === "XX002") {
      return new AppError("DATA_LOSS", "a file of the database is damaged", { cause: thrown });
    }
    // Shutdown and crash end the connection, perhaps between a commit and the answer to it.
    if (!code.startsWith("08") && code !== "57P01" && code !== "57P02") return thrown;
  } else if (!isConnectionFailure(thrown)) {
    return thrown;
  }
  return new AppError("UNAVAILABLE", "the database cannot be reached", {
    cause: new ConnectionLostError(sent, thrown),
    retryAfterMs,
  });
}

/**
 * Whether the connection failed, not the program: the system says so, or
 * node-postgres, which throws plain errors without a code for what it finds
 * itself (ended, not queryable, timed out).
 */
export function isConnectionFailure(thrown: unknown): boolean {
  if (!(thrown instanceof Error) || thrown instanceof pg.DatabaseError) return false;
  return thrown.constructor === Error || thrown instanceof AggregateError || "syscall" in thrown;
}

/**
 * Whether a statement or transaction that failed with this error may have taken
 * effect all the same, because the connection was lost before its answer came.
 */
export function isOutcomeUnknown(error: unknown): boolean {
  return error instanceof AppError && error.cause instanceof ConnectionLostError && error.cause.sent;
}

/** Whether a unique constraint refused a row; that constraint, if it is named. */
export function isUniqueViolation(error: unknown, constraint?: string): boolean {
  return (
    error instanceof pg.DatabaseError &&
    error.code === "23505" &&
    (constraint === undefined || error.constraint === constraint)
  );
}

/**
 * What to log of an error of node-postgres. The error itself holds the client
 * with its address and keys, and its detail the values of a row.
 */
export function describeError(error: unknown): { readonly code: string | undefined; readonly reason: string } {
  if (error instanceof AppError && error.cause instanceof Error) {
    return { code: describeError(error.cause).code, reason: `${error.message}: ${describeError(error.cause).reason}` };
  }
  if (error instanceof ConnectionLostError && error.cause instanceof Error) return describeError(error.cause);
  if (error instanceof Error) return { code: (error as NodeJS.ErrnoException).code, reason: error.message };
  return { code: undefined, reason: String(error) };
}
