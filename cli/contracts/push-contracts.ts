import { type Cadre, CadreError, type SubjectVersion } from "@cadre/sdk";
import { toSchema } from "./compare-contracts.ts";
import type { ContractFile } from "./read-contracts.ts";

/** A file that was registered. */
export interface Pushed {
  readonly file: ContractFile;
  readonly version: SubjectVersion;
}

/**
 * Registers files, each after what it imports, under their subjects. Stops at
 * the first that is refused; those before it stay registered, and pushing again
 * goes on there.
 *
 * @param reason if given, what breaks is forced with it
 */
export async function* pushContracts(
  cadre: Cadre,
  files: readonly ContractFile[],
  subjectsOf: (path: string) => readonly string[],
  reason: string | undefined,
): AsyncGenerator<Pushed> {
  const versions = new Map<string, number>();
  for (const file of files) {
    const schema = toSchema(file, subjectsOf, (path) => versions.get(path) ?? -1);
    for (const subject of subjectsOf(file.path)) {
      const version = await cadre.schemas.register(subject, schema).catch((thrown: unknown) => {
        const breaks = thrown instanceof CadreError && thrown.reason === "SCHEMA_INCOMPATIBLE";
        if (!breaks || reason === undefined) throw thrown;
        return cadre.schemas.force(subject, schema, reason);
      });
      if (!versions.has(file.path)) versions.set(file.path, version.version);
      yield { file, version };
    }
  }
}
