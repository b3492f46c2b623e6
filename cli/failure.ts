import { CadreError } from "@cadre/sdk";
import { CommanderError } from "commander";
import { type ExitCode, exitCode } from "./exit-code.ts";

/** Something that a command cannot do, in words for who called it. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: ExitCode;
  /** What can be done about it; may be empty. */
  readonly remedy: string;

  constructor(code: ExitCode, message: string, remedy = "") {
    super(message);
    this.exitCode = code;
    this.remedy = remedy;
  }
}

/** How a failure is told: never with a stack trace. */
export interface Explanation {
  readonly exitCode: ExitCode;
  readonly message: string;
  readonly remedy: string;
}

// Codes of google.rpc that say: not you, or not with this key.
const permissionDenied = 7;
const unauthenticated = 16;

/** Says what whatever was thrown means for who called, and for the shell. */
export function explain(thrown: unknown): Explanation {
  if (thrown instanceof CliError) {
    return { exitCode: thrown.exitCode, message: thrown.message, remedy: thrown.remedy };
  }
  if (thrown instanceof CadreError) return explainCadreError(thrown);
  if (thrown instanceof CommanderError) {
    // Commander has said it already.
    return { exitCode: thrown.exitCode === 0 ? exitCode.done : exitCode.usage, message: "", remedy: "" };
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { exitCode: exitCode.failed, message, remedy: "" };
}

function explainCadreError(error: CadreError): Explanation {
  const details = [
    ...error.violations.map(({ field, message }) => `\n  ${field}: ${message}`),
    ...error.quotas.map(({ limit, value, message }) => `\n  ${limit} is ${value}: ${message}`),
  ].join("");
  const id = error.requestId === undefined || error.reason !== "INTERNAL" ? "" : ` (${error.requestId})`;
  const message = `${error.message}${id}${details}`;
  if (error.code === unauthenticated) {
    return {
      exitCode: exitCode.notAllowed,
      message,
      remedy: "Run `cadre login`, set CADRE_API_KEY, or run where the server's data directory is.",
    };
  }
  if (error.code === permissionDenied) return { exitCode: exitCode.notAllowed, message, remedy: error.remedy };
  // Without a request id no Cadre has answered.
  if (error.reason === "UNAVAILABLE" && error.requestId === undefined) {
    return {
      exitCode: exitCode.unreachable,
      message: `the server cannot be reached: ${message}`,
      remedy: "Start one with `npm start`, or say where it is with --url or CADRE_URL; `cadre doctor` looks closer.",
    };
  }
  return { exitCode: exitCode.failed, message, remedy: error.remedy };
}
