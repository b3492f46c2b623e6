import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ContractInit } from "@cadre/sdk";
import { subjectOf, topics } from "../../services/runtime/bus/topics.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { type ContractFile, readContracts } from "./read-contracts.ts";

/** Which files a command is about. */
export interface SourceFlags {
  readonly own?: boolean;
  readonly import?: readonly string[];
}

/** The files that were read. */
export interface ContractSource {
  readonly directory: string;
  readonly files: readonly ContractFile[];
}

/** Hundreds of files are compiled by the registry in one call. */
export const setTimeoutMs = 120_000;

const usualDirectory = "proto";
const usualImports = "third_party/proto";

/**
 * Reads the `.proto` files that a command is about.
 *
 * @param directory `proto` unless said
 * @throws CliError as `readContracts`
 */
export async function readSource(directory: string | undefined, flags: SourceFlags): Promise<ContractSource> {
  if (flags.own === true) {
    if (directory !== undefined)
      throw new CliError(exitCode.usage, "--own has a directory of its own: leave yours out");
    const root = fileURLToPath(new URL("../../", import.meta.url));
    const own = `${root}${usualDirectory}`;
    return { directory: own, files: await readContracts(own, [`${root}${usualImports}`]) };
  }
  const from = directory ?? usualDirectory;
  const imports = flags.import ?? (existsSync(usualImports) ? [usualImports] : []);
  return { directory: from, files: await readContracts(from, imports) };
}

/** A file as it is registered: under its path, and under the subjects of the topics that carry its messages. */
export function toContract({ path, text, imports }: ContractFile): ContractInit {
  const carrying = topics.filter(({ message }) => message.file.proto.name === path);
  return { path, schema: text, imports, subjects: carrying.map(subjectOf) };
}
