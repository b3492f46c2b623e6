import type { ExitCode } from "../exit-code.ts";

/** What a look at something found. */
export interface Finding {
  /** What was looked at, for example `server`. */
  readonly name: string;
  /** `skipped` if it could not be looked at, or does not concern this machine. */
  readonly state: "ok" | "warning" | "failed" | "skipped";
  /** What there is, in a line. */
  readonly detail: string;
  /** What to do about it. */
  readonly remedy?: string;
  /** What `doctor` exits with, if this is the first that failed; 1 unless said. */
  readonly exitCode?: ExitCode;
}
