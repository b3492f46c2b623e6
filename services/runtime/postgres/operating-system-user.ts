import { execFile } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The user that a child process runs as; `undefined` for the user of this process. */
export interface OperatingSystemUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The user that PostgreSQL runs as. It refuses to run as root, so root gets the
 * system user `postgres`, which is made if there is none.
 *
 * @throws Error if this process is root and the user can be neither found nor made
 */
export async function postgresUser(): Promise<OperatingSystemUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const found = await lookUp("postgres");
  if (found !== undefined) return found;
  try {
    await run("useradd", ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", "postgres"]);
  } catch (cause) {
    // Another process may have made it at the same moment.
    const made = await lookUp("postgres");
    if (made !== undefined) return made;
    throw new Error("PostgreSQL does not run as root, and the system user `postgres` could not be made", { cause });
  }
  const made = await lookUp("postgres");
  if (made === undefined) throw new Error("the system user `postgres` was made, but is not found");
  return made;
}

async function lookUp(name: string): Promise<OperatingSystemUser | undefined> {
  try {
    const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return undefined; // `id` exits with 1 for an unknown user
  }
}

/** How to start a program as another user. */
export interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly user: OperatingSystemUser | undefined;
}

/**
 * Says how to start `command` as `user`, so that it can read all of `paths`.
 *
 * Root's files may lie below folders that nobody else may enter (`/root`, a
 * folder of `mktemp -d`). Then the program keeps one capability of root's, to
 * pass such folders, through `setpriv` of util-linux.
 *
 * @throws Error if the paths cannot be reached and `setpriv` is not there
 */
export async function launchAs(
  user: OperatingSystemUser | undefined,
  command: string,
  args: readonly string[],
  paths: readonly string[],
): Promise<Launch> {
  if (user === undefined || (await canReach(user, paths))) return { command, args, user };
  for (const capability of ["dac_read_search", "dac_override"]) {
    const setpriv = [
      `--reuid=${user.uid}`,
      `--regid=${user.gid}`,
      "--clear-groups",
      `--inh-caps=+${capability}`,
      `--ambient-caps=+${capability}`,
      "--",
    ];
    try {
      await run("setpriv", [...setpriv, "test", "-r", paths[0] ?? "/"]);
      return { command: "setpriv", args: [...setpriv, command, ...args], user: undefined };
    } catch {
      // No setpriv, or a container without this capability: try the next.
    }
  }
  throw new Error(
    `PostgreSQL runs as the user \`postgres\` when Cadre runs as root, and that user cannot enter ${paths.join(" or ")}: ` +
      "run Cadre as a normal user, or move it and its data directory to a folder that others may enter",
  );
}

async function canReach(user: OperatingSystemUser, paths: readonly string[]): Promise<boolean> {
  try {
    await Promise.all(
      paths.map(async (path) => {
        await access(path, constants.F_OK);
        await run("test", ["-r", path], { uid: user.uid, gid: user.gid });
      }),
    );
    return true;
  } catch {
    return false;
  }
}
