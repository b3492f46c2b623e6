/** What `cadre` exits with; 69, 77 and 78 are those of sysexits.h. */
export const exitCode = {
  done: 0,
  failed: 1,
  usage: 2,
  unreachable: 69,
  notAllowed: 77,
  configuration: 78,
} as const;

/** One of the codes. */
export type ExitCode = (typeof exitCode)[keyof typeof exitCode];
