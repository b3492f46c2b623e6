import { AppError } from "../../runtime/errors/app-error.ts";

/** Names that the Confluent registry keeps for itself. */
const kept = new Set(["__GLOBAL", "__EMPTY"]);

/**
 * Holds the name of a subject to its form: 1 to 255 characters, none of them a
 * control character, and no context before it, for there are none here.
 *
 * @throws AppError INVALID_ARGUMENT
 */
export function assertSubject(subject: string): void {
  if (/^:[.*]/.test(subject)) {
    throw invalid(`contexts are not supported: leave out what stands between the colons of "${subject.slice(0, 100)}"`);
  }
  if (subject === "" || subject.length > 255 || kept.has(subject) || /[\u0000-\u001f\u007f]/.test(subject)) {
    throw invalid("a subject's name has 1 to 255 characters without control characters, and is none of the registry's");
  }
}

function invalid(message: string): AppError {
  return new AppError("INVALID_ARGUMENT", message, { violations: [{ field: "subject", message, rule: "subject" }] });
}
