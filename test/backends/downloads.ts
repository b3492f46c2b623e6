import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

const cache = join(import.meta.dirname, "../../node_modules/.cache/cadre");
const timeoutMs = 300_000;

/** A JVM starts in half the time, and takes less of two cores, if it does not optimise for hours of work. */
export const jvmOptions = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] as const;

/**
 * A directory in `node_modules/.cache` that `fill` has filled once.
 *
 * @param name with what its content depends on
 * @param what and how much, for people who wait
 */
export async function downloaded(
  name: string,
  what: string,
  fill: (directory: string) => Promise<void>,
): Promise<string> {
  const directory = join(cache, name);
  if (existsSync(directory)) return directory;
  process.stderr.write(`Downloading ${what} from Maven Central, once …\n`);
  const startedMs = performance.now();
  const unfinished = `${directory}.${process.pid}`;
  await mkdir(unfinished, { recursive: true });
  try {
    await fill(unfinished);
    await rename(unfinished, directory);
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
  process.stderr.write(`Downloaded in ${Math.round((performance.now() - startedMs) / 1_000)} s.\n`);
  return directory;
}

/** Runs a program to its end; its output is in the error if it fails. */
export async function run(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], timeout: timeoutMs });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-8 * 1024);
    });
  }
  try {
    await once(child, "close");
  } catch (cause) {
    throw new Error(`${program} cannot be run; on Debian: apt-get install default-jdk-headless maven`, { cause });
  }
  if (child.exitCode !== 0) throw new Error(`${program} ended with ${child.exitCode}: ${output}`);
}
