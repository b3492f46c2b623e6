import { type Cadre, CadreError, type SchemaInit, type SubjectVersion } from "@cadre/sdk";
import type { ContractFile } from "./read-contracts.ts";

/** How a file stands to what is registered under a subject. */
export interface Comparison {
  readonly file: ContractFile;
  readonly subject: string;
  readonly state:
    | { readonly kind: "same"; readonly version: SubjectVersion }
    /** Nothing is registered there. */
    | { readonly kind: "new" }
    /** It could be registered. */
    | { readonly kind: "changed" }
    /** It is the same, but for an import that has changed. */
    | { readonly kind: "follows"; readonly imported: string }
    | { readonly kind: "breaks"; readonly messages: readonly string[] };
}

/**
 * Compares files, each after what it imports, with what is registered; changes
 * nothing.
 *
 * @param subjectsOf the subjects of a file; the first one stands for it where it is imported
 */
export async function compareContracts(
  cadre: Cadre,
  files: readonly ContractFile[],
  subjectsOf: (path: string) => readonly string[],
): Promise<readonly Comparison[]> {
  const comparisons: Comparison[] = [];
  const states = new Map<string, Comparison["state"]>();
  for (const file of files) {
    for (const subject of subjectsOf(file.path)) {
      const state = await compare(cadre, file, subject, states, subjectsOf);
      comparisons.push({ file, subject, state });
      if (!states.has(file.path)) states.set(file.path, state);
    }
  }
  return comparisons;
}

async function compare(
  cadre: Cadre,
  file: ContractFile,
  subject: string,
  states: ReadonlyMap<string, Comparison["state"]>,
  subjectsOf: (path: string) => readonly string[],
): Promise<Comparison["state"]> {
  const latest = await latestOf(cadre, subject);
  if (latest === undefined) return { kind: "new" };
  // With what is registered of its imports now: is it the file itself that has changed?
  const missing = file.imports.find((path) => states.get(path)?.kind === "new");
  if (missing !== undefined) return { kind: "follows", imported: missing };
  const schema = toSchema(file, subjectsOf, () => -1);
  const found = await cadre.schemas.find(subject, schema);
  if (found !== undefined) {
    const imported = file.imports.find((path) => states.get(path)?.kind !== "same");
    return imported === undefined ? { kind: "same", version: found } : { kind: "follows", imported };
  }
  const findings = await cadre.schemas.check(subject, schema);
  if (findings.length === 0) return { kind: "changed" };
  return { kind: "breaks", messages: findings.map(({ message }) => message) };
}

async function latestOf(cadre: Cadre, subject: string): Promise<SubjectVersion | undefined> {
  try {
    return await cadre.schemas.get(subject);
  } catch (thrown) {
    if (thrown instanceof CadreError && thrown.reason === "SUBJECT_NOT_FOUND") return undefined;
    throw thrown;
  }
}

/** A file as it is registered: its imports are references to the versions that stand for them. */
export function toSchema(
  file: ContractFile,
  subjectsOf: (path: string) => readonly string[],
  versionOf: (path: string) => number,
): SchemaInit {
  return {
    schema: file.text,
    references: file.imports.map((path) => ({
      name: path,
      subject: subjectsOf(path)[0] ?? path,
      version: versionOf(path),
    })),
  };
}
