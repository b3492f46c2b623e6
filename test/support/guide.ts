import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RunningCadre } from "./cadre.ts";

const root = join(import.meta.dirname, "../..");

/** How a guide's commands ended, and what they printed. */
export interface GuideRun {
  readonly commands: number;
  readonly code: number | null;
  readonly output: string;
}

/**
 * Runs what a guide of `docs/guides` shows, as a reader would: the files that
 * it names (a `yaml` block whose first line is `# name`) are written, and its
 * `sh` blocks run one after the other in one shell, which stops at the first
 * failure.
 *
 * @param home the shell's home and working directory
 */
export async function runGuide(name: string, home: string, server: RunningCadre): Promise<GuideRun> {
  const guide = readFileSync(join(root, "docs/guides", name), "utf8");
  for (const [, file = "", content = ""] of guide.matchAll(/```yaml\n# (\S+)\n([\s\S]*?)```/g)) {
    writeFileSync(join(home, file), content);
  }
  const commands = [...guide.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, code]) => code);
  const script = [
    "set -euo pipefail",
    `cadre() { "${process.execPath}" "${join(root, "cli/bin/cadre.js")}" "$@"; }`,
    ...commands,
  ].join("\n");
  const clean = Object.fromEntries(Object.entries(process.env).filter(([variable]) => !variable.startsWith("CADRE_")));
  const env = { ...clean, HOME: home, NO_COLOR: "1", CADRE_URL: server.url, CADRE_API_KEY: server.adminKey };
  return await new Promise((resolve) => {
    const child = spawn("bash", ["-c", script], { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk));
    child.once("close", (code) => resolve({ commands: commands.length, code, output }));
  });
}
