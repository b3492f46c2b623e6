import { type Cadre, CadreError, type SubjectVersion } from "@cadre/sdk";
import { type Comparison, toSchema } from "./compare-contracts.ts";

/**
 * Registers what is not registered as it is here, in the order of the
 * comparisons, which is that of imports. Stops at the first that is refused;
 * those before it stay registered, and pushing again goes on there.
 *
 * @param subjectsOf as for `compareContracts`
 * @param reason if given, what breaks is forced with it
 * @returns each version that was made, when it was
 */
export async function* pushContracts(
  cadre: Cadre,
  comparisons: readonly Comparison[],
  subjectsOf: (path: string) => readonly string[],
  reason: string | undefined,
): AsyncGenerator<SubjectVersion> {
  /** By the subjects that stand for the files that others import. */
  const versions = new Map<string, number>();
  const versionOf = (path: string): number => versions.get(subjectsOf(path)[0] ?? path) ?? -1;
  for (const { file, subject, state } of comparisons) {
    if (state.kind === "same") {
      versions.set(subject, state.version.version);
      continue;
    }
    const schema = toSchema(file, subjectsOf, versionOf);
    const version = await cadre.schemas.register(subject, schema).catch((thrown: unknown) => {
      const breaks = thrown instanceof CadreError && thrown.reason === "SCHEMA_INCOMPATIBLE";
      if (!breaks || reason === undefined) throw thrown;
      return cadre.schemas.force(subject, schema, reason);
    });
    versions.set(subject, version.version);
    yield version;
  }
}
