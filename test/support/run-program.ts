import { spawn } from "node:child_process";

/** What a program printed and how it ended. */
export interface ProgramResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end. `until` is asked after each piece of standard
 * output, and ends the program (SIGTERM) when it says true: for programs that
 * read an endless stream.
 */
export function runProgram(
  program: string,
  args: readonly string[],
  options: { readonly input?: string; readonly until?: (stdout: string) => boolean; readonly timeoutMs?: number } = {},
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
    // npm's wrappers hand no signal on to the program that they run: the whole group gets it.
    const end = (signal: NodeJS.Signals): void => {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, signal);
    };
    let stdout = "";
    let stderr = "";
    const timer = setTimeout(() => {
      end("SIGKILL");
      reject(new Error(`${program} did not end in time; it printed: ${stdout}${stderr}`));
    }, options.timeoutMs ?? 60_000);
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (options.until?.(stdout) === true) end("SIGTERM");
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
    child.stdin.end(options.input ?? "");
  });
}
