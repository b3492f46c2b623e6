import { chmod, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";

/** A server and a key for it, under a name. */
export interface Profile {
  readonly url: string;
  readonly apiKey: string;
}

interface ProfileFile {
  readonly current: string;
  readonly profiles: Readonly<Record<string, Profile>>;
}

/** Where profiles are kept. */
export function profilePath(environment: NodeJS.ProcessEnv = process.env): string {
  const configHome = environment.XDG_CONFIG_HOME;
  const base = configHome === undefined || configHome === "" ? join(homedir(), ".config") : configHome;
  return join(base, "cadre", "credentials.json");
}

/**
 * Reads a profile; `undefined` if there is none of that name.
 *
 * @param name the one that was logged in last unless said
 * @throws CliError 78 if the file is damaged, or others can read it
 */
export async function readProfile(path: string, name?: string): Promise<Profile | undefined> {
  const file = await readFileOf(path);
  return file?.profiles[name ?? file.current];
}

/** Writes a profile and makes it the current one. The file is readable by its owner only, and never half written. */
export async function writeProfile(path: string, name: string, profile: Profile): Promise<void> {
  const file = await readFileOf(path);
  const next: ProfileFile = { current: name, profiles: { ...file?.profiles, [name]: profile } };
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}`;
  await writeFile(temporary, `${JSON.stringify(next, null, 2)}\n`, { mode: 0o600 });
  await chmod(temporary, 0o600);
  await rename(temporary, path);
}

async function readFileOf(path: string): Promise<ProfileFile | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw new CliError(exitCode.configuration, `${path} cannot be read: ${(thrown as Error).message}`);
  }
  const { mode } = await stat(path);
  if (process.platform !== "win32" && (mode & 0o077) !== 0) {
    throw new CliError(exitCode.configuration, `${path} holds keys and others can read it`, `Run: chmod 600 ${path}`);
  }
  const parsed = parse(text);
  if (parsed === undefined) {
    throw new CliError(exitCode.configuration, `${path} is damaged`, "Delete it and run `cadre login` again.");
  }
  return parsed;
}

function parse(text: string): ProfileFile | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isProfileFile(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isProfileFile(value: unknown): value is ProfileFile {
  if (!isRecord(value) || typeof value.current !== "string" || !isRecord(value.profiles)) return false;
  return Object.values(value.profiles).every(
    (profile) => isRecord(profile) && typeof profile.url === "string" && typeof profile.apiKey === "string",
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a file operation failed because there is no such file. */
export function isMissing(thrown: unknown): boolean {
  return thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
}
