import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Cadre, type CadreOptions, createCadre } from "@cadre/sdk";
import type { Command } from "commander";
import { exitCode } from "./exit-code.ts";
import { CliError } from "./failure.ts";
import { isMissing, profilePath, readProfile } from "./profile.ts";

/** The flags by which any command finds its server. */
export interface ConnectionFlags {
  readonly url?: string;
  readonly apiKey?: string;
  readonly profile?: string;
  readonly data?: string;
}

/** A value, and where it came from, for example `CADRE_URL`. */
export interface Sourced {
  readonly value: string;
  readonly source: string;
}

/** Which server a command talks to. */
export interface Connection {
  readonly url: Sourced;
  /** Absent if none was found. */
  readonly apiKey: Sourced | undefined;
  /** The data directory of a server on this machine, absolute; it need not exist. */
  readonly dataDirectory: Sourced;
}

const defaultUrl = "http://127.0.0.1:8010";

/** Adds the flags of a connection to a command. */
export function withConnection(command: Command): Command {
  return command
    .option("--url <url>", `the server; else CADRE_URL, the profile, or ${defaultUrl}`)
    .option("--api-key <key>", "the API key; else CADRE_API_KEY, the profile, or <data>/admin.key")
    .option("--profile <name>", "a profile that `cadre login` wrote; else CADRE_PROFILE, or the last one")
    .option("--data <directory>", "the data directory of a server on this machine; else CADRE_DATA, or .cadre");
}

/**
 * Finds server and key: flag, environment, profile, the key file of a server on
 * this machine. A key goes only where it belongs: a profile's to the profile's
 * server, the key file's to this machine.
 *
 * @throws CliError 78 if something that was said is wrong
 */
export async function resolveConnection(
  flags: ConnectionFlags,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Connection> {
  const said = (flag: string | undefined, flagName: string, name: string): Sourced | undefined => {
    if (flag !== undefined) return { value: flag, source: flagName };
    const value = environment[name];
    return value === undefined || value === "" ? undefined : { value, source: name };
  };

  const data = said(flags.data, "--data", "CADRE_DATA") ?? { value: ".cadre", source: "default" };
  const dataDirectory = { ...data, value: resolve(data.value) };
  const profileName = said(flags.profile, "--profile", "CADRE_PROFILE");
  const path = profilePath(environment);
  const profile = await readProfile(path, profileName?.value);
  if (profile === undefined && profileName !== undefined) {
    throw new CliError(
      exitCode.configuration,
      `there is no profile ${JSON.stringify(profileName.value)} in ${path}`,
      "Make it with `cadre login --profile NAME`.",
    );
  }
  const profileSource = `profile${profileName === undefined ? "" : ` ${profileName.value}`}`;

  const url =
    said(flags.url, "--url", "CADRE_URL") ??
    (profile === undefined ? undefined : { value: profile.url, source: profileSource }) ??
    ({ value: defaultUrl, source: "default" } satisfies Sourced);
  const parsed = parseUrl(url);

  const apiKey =
    said(flags.apiKey, "--api-key", "CADRE_API_KEY") ??
    (profile !== undefined && isSameOrigin(profile.url, parsed)
      ? { value: profile.apiKey, source: profileSource }
      : undefined) ??
    (isThisMachine(parsed) ? await readKeyFile(join(dataDirectory.value, "admin.key")) : undefined);
  return { url, apiKey, dataDirectory };
}

/** A client for the server that a command's flags lead to. */
export async function connect(flags: ConnectionFlags, options: Partial<CadreOptions> = {}): Promise<Cadre> {
  const { url, apiKey } = await resolveConnection(flags);
  return createCadre({ baseUrl: url.value, ...(apiKey === undefined ? {} : { apiKey: apiKey.value }), ...options });
}

function parseUrl({ value, source }: Sourced): URL {
  if (!URL.canParse(value) || !/^https?:\/\//.test(value)) {
    throw new CliError(
      exitCode.configuration,
      `${source} is ${JSON.stringify(value)}, which is no http or https URL`,
      `For example: ${defaultUrl}`,
    );
  }
  return new URL(value);
}

function isSameOrigin(a: string, b: URL): boolean {
  return URL.canParse(a) && new URL(a).origin === b.origin;
}

function isThisMachine({ hostname }: URL): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

async function readKeyFile(path: string): Promise<Sourced | undefined> {
  try {
    return { value: (await readFile(path, "utf8")).trim(), source: path };
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw new CliError(
      exitCode.configuration,
      `${path} cannot be read: ${(thrown as Error).message}`,
      "Run as the user who runs the server, or set CADRE_API_KEY.",
    );
  }
}
