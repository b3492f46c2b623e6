import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** A Node process that a test started. */
export interface Child {
  readonly pid: number;
  /** Its next line of standard output; rejects if it ends before. */
  line(): Promise<string>;
  /** Kills it at once, as a crash would, and waits for its end. */
  crash(): Promise<void>;
  /** Ends its standard input, and waits for its end; returns its exit code. */
  finish(): Promise<number | null>;
  /** What it wrote to standard error so far. */
  errors(): string;
}

/**
 * Starts a TypeScript file of this repository as a process of its own.
 *
 * @param environment on top of this process's
 */
export function startChild(
  file: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Child {
  const child: ChildProcess = spawn(process.execPath, [file, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  const { pid, stdin, stdout, stderr } = child;
  if (pid === undefined || stdin === null || stdout === null || stderr === null)
    throw new Error(`cannot start ${file}`);
  const ended = once(child, "exit");
  let errors = "";
  stderr.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-64 * 1024);
  });
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return {
    pid,
    async line() {
      const next = await lines.next();
      if (next.done === true) throw new Error(`${file} ended without a line: ${errors}`);
      return next.value;
    },
    async crash() {
      child.kill("SIGKILL");
      await ended;
    },
    async finish() {
      stdin.end();
      await ended;
      return child.exitCode;
    },
    errors: () => errors,
  };
}
