import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Cadre } from "@cadre/sdk";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { isMissing } from "../profile.ts";
import { fetchContracts } from "./fetch-contracts.ts";
import { generateCode, usesValidate } from "./generate-code.ts";
import { packageFiles, packageMark } from "./package-files.ts";

/** A client package that was written. */
export interface GeneratedSdk {
  readonly name: string;
  /** Absolute. */
  readonly directory: string;
  readonly contracts: readonly { readonly subject: string; readonly version: number }[];
}

const packageName = /^(@[a-z0-9-~][a-z0-9-._~]*\/)?[a-z0-9-~][a-z0-9-._~]*$/;

/**
 * Makes an npm package of registered contracts: typed messages, and a client of
 * each service. It needs no build, and the network only to the registry.
 *
 * @param names subjects or packages
 * @param out a directory that is new, empty, or such a package already
 * @param name the package's; made of the first name unless given
 * @throws CliError if something is in the way
 */
export async function generateSdk(
  cadre: Cadre,
  names: readonly string[],
  out: string,
  name = defaultName(names),
): Promise<GeneratedSdk> {
  if (name.length > 214 || !packageName.test(name)) {
    throw new CliError(exitCode.usage, `${JSON.stringify(name)} is no name of an npm package`, "Say one with --name.");
  }
  const directory = resolve(out);
  await assertOurs(directory);
  const { roots, files } = await fetchContracts(cadre, names);
  const descriptors = await generateCode(files, join(directory, "src"));
  const rootFiles = roots.map(({ path }) => {
    const file = descriptors.get(path);
    if (file === undefined) throw new TypeError(`${path} was compiled and has no descriptor`);
    return file;
  });
  await mkdir(directory, { recursive: true });
  for (const [file, text] of packageFiles({ name, roots, rootFiles, isValidated: usesValidate(files) })) {
    await writeFile(join(directory, file), text);
  }
  return {
    name,
    directory,
    contracts: roots.map(({ version }) => ({ subject: version.subject, version: version.version })),
  };
}

function defaultName([first = ""]: readonly string[]): string {
  const base = first.replace(/\.proto$/, "").replaceAll(/[^A-Za-z0-9]+/g, "-");
  return `${base.toLowerCase().replaceAll(/^-+|-+$/g, "")}-sdk`;
}

/** Nothing is written over what somebody else put there. */
async function assertOurs(directory: string): Promise<void> {
  let entries: readonly string[];
  try {
    entries = await readdir(directory);
  } catch (thrown) {
    if (isMissing(thrown)) return;
    throw thrown;
  }
  if (entries.length === 0) return;
  const manifest = entries.includes("package.json") ? await readFile(join(directory, "package.json"), "utf8") : "";
  if (manifest.includes(`"${packageMark}"`)) return;
  throw new CliError(exitCode.usage, `${directory} has files that were not generated`, "Name a new directory.");
}
