import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

const root = join(import.meta.dirname, "../..");
const pom = join(import.meta.dirname, "pom.xml");
const timeoutMs = 300_000;

/**
 * The class path of Apache Kafka as `pom.xml` says it. Downloaded from Maven
 * Central when it is first asked for (54 MB), and kept in `node_modules/.cache`.
 *
 * @throws Error if there is no Java or no Maven, or nothing can be downloaded
 */
export async function kafkaClassPath(): Promise<string> {
  const version = createHash("sha256").update(readFileSync(pom)).digest("hex").slice(0, 12);
  const directory = join(root, "node_modules/.cache/cadre", `kafka-${version}`);
  if (!existsSync(directory)) {
    process.stderr.write("Downloading Apache Kafka from Maven Central (54 MB, once) …\n");
    const startedMs = performance.now();
    const unfinished = `${directory}.${process.pid}`;
    await mkdir(unfinished, { recursive: true });
    try {
      await run("mvn", ["-q", "-B", "-f", pom, "dependency:copy-dependencies", `-DoutputDirectory=${unfinished}`]);
      await rename(unfinished, directory);
    } finally {
      await rm(unfinished, { recursive: true, force: true });
    }
    process.stderr.write(`Downloaded in ${Math.round((performance.now() - startedMs) / 1_000)} s.\n`);
  }
  return `${directory}/*`;
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
    throw new Error(`${program} cannot be run; on Debian: apt-get install default-jre-headless maven`, { cause });
  }
  if (child.exitCode !== 0) throw new Error(`${program} ended with ${child.exitCode}: ${output}`);
}
