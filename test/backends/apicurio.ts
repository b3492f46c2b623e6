import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { downloaded, jvmOptions, run } from "./downloads.ts";
import { freePorts } from "./free-ports.ts";

/** A schema registry that is not ours, on a free port of 127.0.0.1. */
export interface ForeignRegistry {
  /** Where it speaks Confluent's REST API. */
  readonly url: string;
  /** Ends it; what it held is gone. */
  stop(): Promise<void>;
}

const version = "3.3.3";
const leastJava = 21;
const startTimeoutMs = 240_000;

/** Starts Apicurio Registry with its database in memory. Resolves when it answers. */
export async function startApicurio(): Promise<ForeignRegistry> {
  const java = findJava();
  const home = await downloaded(`apicurio-${version}`, "Apicurio Registry (158 MB)", async (target) => {
    const artifact = `io.apicurio:apicurio-registry-app:${version}:tar.gz:all`;
    await run("mvn", ["-q", "-B", "dependency:copy", `-Dartifact=${artifact}`, `-DoutputDirectory=${target}`]);
    const archive = join(target, `apicurio-registry-app-${version}-all.tar.gz`);
    await run("tar", ["-xzf", archive, "-C", target]);
    await rm(archive);
  });
  const [port = 0, managementPort = 0] = await freePorts(2);
  const directory = await mkdtemp(join(tmpdir(), "cadre apicurio "));
  const child = spawn(java, [...jvmOptions, "-jar", findJar(home)], {
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      QUARKUS_HTTP_HOST: "127.0.0.1",
      QUARKUS_HTTP_PORT: String(port),
      QUARKUS_MANAGEMENT_PORT: String(managementPort),
    },
  });
  const ended = once(child, "exit");
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  child.once("exit", () => process.off("exit", kill));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-8 * 1024);
    });
  }
  const url = `http://127.0.0.1:${port}/apis/ccompat/v7`;
  const untilMs = performance.now() + startTimeoutMs;
  while (!(await answers(url))) {
    if (child.exitCode !== null) throw new Error(`Apicurio ended with ${child.exitCode}: ${output}`);
    if (performance.now() > untilMs) throw new Error(`Apicurio does not answer: ${output}`);
    await delay(200);
  }
  return {
    url,
    async stop() {
      kill();
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/subjects`)).ok;
  } catch {
    return false; // it starts; if it never answers, what it wrote is told
  }
}

function findJar(home: string): string {
  const found = readdirSync(home, { recursive: true, encoding: "utf8" }).find((path) =>
    path.endsWith("quarkus-run.jar"),
  );
  if (found === undefined) throw new Error(`no quarkus-run.jar in ${home}`);
  return join(home, found);
}

/** A Java that is new enough: of JAVA_HOME, or one of those that Debian's packages install. */
function findJava(): string {
  const machines = "/usr/lib/jvm";
  const homes = [
    process.env["JAVA_HOME"] ?? "",
    ...(existsSync(machines) ? readdirSync(machines).map((name) => join(machines, name)) : []),
  ];
  const home = homes.find((one) => {
    const release = join(one, "release");
    if (one === "" || !existsSync(release)) return false;
    const [, major = "0"] = /JAVA_VERSION="(\d+)/.exec(readFileSync(release, "utf8")) ?? [];
    return Number(major) >= leastJava;
  });
  if (home === undefined) throw new Error(`Apicurio needs a Java of ${leastJava} or newer: set JAVA_HOME to it`);
  return join(home, "bin/java");
}
