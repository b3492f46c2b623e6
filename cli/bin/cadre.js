#!/usr/bin/env node
// The way in. Any Node.js from 14 on runs this file; the rest needs a newer one,
// which the npm package `node` has brought along.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import module from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
const isNewEnough = major > 24 || (major === 24 && minor >= 15);

if (isNewEnough) {
  // What was compiled once is kept: the next start is faster and needs less memory.
  module.enableCompileCache(join(packageRoot, "node_modules", ".cache", "cadre"));
  const { main } = await import("../main.ts");
  await main(process.argv);
} else {
  const program = findNode(dirname(fileURLToPath(import.meta.url)));
  if (program === undefined) {
    process.stderr.write(
      `cadre: needs Node.js 24.15 or newer, and this is ${process.versions.node}: run \`npm ci\`, which brings one, or install it\n`,
    );
    process.exitCode = 78;
  } else {
    handOver(program);
  }
}

/** The program of the npm package `node`, in the nearest node_modules. */
function findNode(directory) {
  const name = process.platform === "win32" ? "node.exe" : "node";
  for (let current = directory; ; current = dirname(current)) {
    const program = join(current, "node_modules", "node", "bin", name);
    if (existsSync(program)) return program;
    if (dirname(current) === current) return undefined;
  }
}

/** Runs the same command under another Node.js, as if it were this process. */
function handOver(program) {
  const child = spawn(program, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" });
  // The terminal sends Ctrl-C to both; others send a signal to this process only.
  process.on("SIGINT", () => {});
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    process.stderr.write(`cadre: cannot run ${program}: ${error.message}\n`);
    process.exitCode = 78;
  });
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}
