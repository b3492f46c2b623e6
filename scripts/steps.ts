import { spawn } from "node:child_process";

/** One thing to check: a title, and a program whose exit code is the answer. */
export interface Step {
  readonly title: string;
  readonly command: readonly [string, ...string[]];
}

/**
 * Runs steps one after the other and prints a line for each; the output of one
 * that fails is printed whole. Returns how many passed, and the titles of those that failed.
 */
export async function runSteps(steps: readonly Step[]): Promise<{ passed: number; failed: readonly string[] }> {
  const failed: string[] = [];
  for (const step of steps) {
    const startedAt = performance.now();
    const { code, output } = await run(step.command);
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
    process.stdout.write(`${code === 0 ? "ok  " : "FAIL"} ${step.title} (${seconds} s)\n`);
    if (code === 0) continue;
    failed.push(step.title);
    process.stdout.write(`${output}\n  ${step.command.join(" ")} ended with ${code}\n`);
  }
  return { passed: steps.length - failed.length, failed };
}

function run([program, ...args]: Step["command"]): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString() }));
  });
}
