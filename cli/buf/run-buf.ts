import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);
const maxOutputBytes = 64 * 1024 * 1024;
/** It takes a second; the rest is for a machine that is overloaded. */
const timeoutMs = 120_000;

/** What buf printed, and how it ended. */
export interface BufResult {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/**
 * Runs the buf that comes with Cadre; it needs no network. Rejects if it cannot
 * be started, or does not end in two minutes.
 */
export function runBuf(args: readonly string[], cwd: string): Promise<BufResult> {
  const program = programOf("@bufbuild/buf", "buf");
  return new Promise((resolve, reject) => {
    const options = { cwd, encoding: "buffer", maxBuffer: maxOutputBytes, timeout: timeoutMs } as const;
    execFile(program, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === "number") resolve({ code, stdout, stderr: stderr.toString() });
      else reject(new Error("buf could not be run", { cause: error }));
    });
  });
}

/** Where the program of an installed package is. */
export function programOf(packageName: string, program: string): string {
  return join(dirname(require.resolve(`${packageName}/package.json`)), "bin", program);
}
