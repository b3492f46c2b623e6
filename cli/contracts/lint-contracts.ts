import { existsSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { inProtoWorkspace, workspaceModule } from "../buf/proto-workspace.ts";
import { type BufResult, runBuf } from "../buf/run-buf.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { lintOwnRules } from "./own-rules.ts";
import type { ContractFile } from "./read-contracts.ts";

/** What `buf lint --error-format=json` prints on a line. */
interface BufProblem {
  readonly path?: string;
  readonly start_line?: number;
  readonly start_column?: number;
  readonly type: string;
  readonly message: string;
}

/**
 * Lints the files of a directory: by the rules of its `buf.yaml`, which is
 * looked for there and above, else by buf's STANDARD ones; contracts of Cadre's
 * own by Cadre's rules, too.
 *
 * @returns a line a problem, with file, place and rule
 * @throws CliError if buf cannot read the files
 */
export async function lintContracts(directory: string, files: readonly ContractFile[]): Promise<readonly string[]> {
  if (hasConfiguration(directory)) return lintAt(process.cwd(), directory, files, directory);
  return inProtoWorkspace(files, (workspace) => lintAt(workspace, workspaceModule.own, files, directory));
}

function hasConfiguration(directory: string): boolean {
  for (let at = resolve(directory); ; at = dirname(at)) {
    if (existsSync(join(at, "buf.yaml"))) return true;
    if (dirname(at) === at) return false;
  }
}

/** @param shown what stands for the target in what is told */
async function lintAt(cwd: string, target: string, files: readonly ContractFile[], shown: string) {
  const linted = await runBuf(["lint", target, "--error-format=json"], cwd);
  const problems = linted.stdout
    .toString()
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => describe(JSON.parse(line) as BufProblem, resolve(cwd, target), cwd, shown));
  if (linted.code !== 0 && problems.length === 0) throw unreadable(linted);
  if (problems.length > 0 || !files.some(({ path, isForeign }) => !isForeign && isOurs(path))) return problems;

  const built = await runBuf(["build", target, "--as-file-descriptor-set", "-o", "-#format=binpb"], cwd);
  if (built.code !== 0) throw unreadable(built);
  return lintOwnRules(built.stdout, isOurs);
}

function isOurs(path: string): boolean {
  return path.startsWith("cadre/");
}

function describe(problem: BufProblem, target: string, cwd: string, shown: string): string {
  const { path, start_line: line, start_column: column, type, message } = problem;
  const place =
    path === undefined ? shown : `${join(shown, relative(target, resolve(cwd, path)))}:${line ?? 1}:${column ?? 1}`;
  return `${place}: ${message} (${type})`;
}

function unreadable({ stderr }: BufResult): CliError {
  return new CliError(exitCode.failed, `the contracts cannot be read: ${stderr.trim()}`);
}
