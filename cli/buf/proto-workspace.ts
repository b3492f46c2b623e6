import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";

/** A `.proto` file of a workspace. */
export interface WorkspaceFile {
  readonly path: string;
  readonly text: string;
  /** Whether it is somebody else's, and only imported. */
  readonly isForeign: boolean;
}

/** Where files are in a workspace. */
export const workspaceModule = { own: "own", foreign: "foreign" } as const;

/**
 * Writes files into a directory of their own in which buf finds them, and
 * removes it after `work`.
 *
 * @throws CliError for a path that leads out of it
 */
export async function inProtoWorkspace<T>(
  files: readonly WorkspaceFile[],
  work: (directory: string) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "cadre-contracts-"));
  try {
    for (const { path, text, isForeign } of files) {
      if (!staysInside(path)) throw new CliError(exitCode.failed, `${path} is no path that can be imported`);
      const file = join(directory, isForeign ? workspaceModule.foreign : workspaceModule.own, path);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, text);
    }
    const hasForeign = files.some(({ isForeign }) => isForeign);
    const modules = [
      { path: workspaceModule.own },
      ...(hasForeign ? [{ path: workspaceModule.foreign, lint: { ignore: [workspaceModule.foreign] } }] : []),
    ];
    // JSON is YAML.
    await writeFile(join(directory, "buf.yaml"), JSON.stringify({ version: "v2", modules }));
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Contracts are written by others: a path must not name a file elsewhere. */
function staysInside(path: string): boolean {
  return !path.includes("\\") && path.split("/").every((segment) => !["", ".", ".."].includes(segment));
}
