import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";

/** A process that a contestant consists of. */
export interface StartedChild {
  readonly pid: number;
  /** The port that it said it listens on; 0 for a program that says nothing. */
  readonly port: number;
  /** Asks it to end, and kills it when it does not; resolves when it has ended. */
  stop(): Promise<void>;
}

const stopWithinMs = 20_000;

/** Starts a Node process that sends its parent the port that it listens on, and ends with it. */
export async function startApplication(file: string, args: readonly string[] = []): Promise<StartedChild> {
  const child = fork(file, args, { execArgv: ["--no-deprecation"], stdio: ["ignore", "ignore", "inherit", "ipc"] });
  const ended = once(child, "exit");
  const [port] = await Promise.race([
    once(child, "message") as Promise<[number]>,
    ended.then(([code]): never => {
      throw new Error(`${file} ended with ${code}`);
    }),
  ]);
  return { pid: pidOf(child), port, stop: () => endOf(child, ended, () => child.disconnect()) };
}

/** Starts a program. */
export function startProgram(
  program: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): StartedChild {
  const child = spawn(program, args, {
    stdio: ["ignore", "ignore", "inherit"],
    env: { PATH: process.env["PATH"], ...environment },
  });
  const ended = once(child, "exit");
  return { pid: pidOf(child), port: 0, stop: () => endOf(child, ended, () => child.kill("SIGTERM")) };
}

function pidOf({ pid, spawnfile }: ChildProcess): number {
  if (pid === undefined) throw new Error(`${spawnfile} does not start`);
  return pid;
}

async function endOf(child: ChildProcess, ended: Promise<unknown>, ask: () => void): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const timer = setTimeout(() => child.kill("SIGKILL"), stopWithinMs);
  ask();
  await ended;
  clearTimeout(timer);
}
