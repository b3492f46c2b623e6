import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { isMissing } from "../profile.ts";

/** A `.proto` file with what it imports. */
export interface ContractFile {
  /** As others import it, for example `cadre/tools/v1/tool.proto`. */
  readonly path: string;
  readonly text: string;
  /** The paths of its imports, without those that every compiler brings along. */
  readonly imports: readonly string[];
  /** Whether it is not in the directory itself, but one that it imports. */
  readonly isForeign: boolean;
}

/**
 * Reads all `.proto` files of a directory, and those that they import from
 * further ones, each after what it imports.
 *
 * @param directory where imports are looked for first
 * @param importDirectories where they are looked for next
 * @throws CliError for a file that is missing, or that imports itself
 */
export async function readContracts(
  directory: string,
  importDirectories: readonly string[],
): Promise<readonly ContractFile[]> {
  const sorted: ContractFile[] = [];
  const state = new Map<string, "open" | "done">();
  const visit = async (path: string, importer: string): Promise<void> => {
    if (state.get(path) === "done") return;
    if (state.get(path) === "open") throw new CliError(exitCode.failed, `${path} imports itself, by ${importer}`);
    state.set(path, "open");
    const { text, isForeign } = await readFirst([directory, ...importDirectories], path, importer);
    const imports = importsOf(text);
    for (const imported of imports) await visit(imported, path);
    state.set(path, "done");
    sorted.push({ path, text, imports, isForeign });
  };
  for (const path of await listFiles(directory)) await visit(path, directory);
  if (sorted.length === 0) throw new CliError(exitCode.usage, `${directory}: there are no .proto files`);
  return sorted;
}

async function listFiles(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { recursive: true });
    return entries
      .filter((entry) => entry.endsWith(".proto"))
      .map((entry) => entry.replaceAll("\\", "/"))
      .sort();
  } catch (thrown) {
    if (isMissing(thrown)) throw new CliError(exitCode.usage, `${directory}: there is no such directory`);
    throw thrown;
  }
}

async function readFirst(
  directories: readonly string[],
  path: string,
  importer: string,
): Promise<Pick<ContractFile, "text" | "isForeign">> {
  for (const directory of directories) {
    try {
      return { text: await readFile(join(directory, path), "utf8"), isForeign: directory !== directories[0] };
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
    }
  }
  throw new CliError(
    exitCode.failed,
    `${importer}: imports ${path}, which is not in ${directories.join(" or ")}`,
    "Name the directory that it is in with --import.",
  );
}

/** The paths that a file imports. Comments are taken out first, for one may hold an import. */
function importsOf(text: string): readonly string[] {
  const code = text.replace(/("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\/\/[^\n]*|\/\*[^]*?\*\//g, (_all, string) =>
    string === undefined ? " " : String(string),
  );
  const paths = [...code.matchAll(/\bimport\s+(?:public\s+|weak\s+)?["']([^"'\n]+)["']\s*;/g)].map((found) => found[1]);
  return paths.filter((path) => path !== undefined && !path.startsWith("google/protobuf/")) as string[];
}
