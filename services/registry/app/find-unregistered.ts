import { assertContractSet, type Contract, subjectsOf } from "../domain/contract-set.ts";
import type { Reference } from "../domain/schema.ts";
import type { RegistryView } from "../store/registry-store.ts";
import type { RegistryDeps } from "./deps.ts";
import { resolveSchema } from "./link-schema.ts";

/** The subjects that do not have a contract. */
export interface Unregistered {
  /** Those without versions. */
  readonly absent: readonly string[];
  /** Those whose versions are all something else. */
  readonly different: readonly string[];
}

/**
 * Finds which contracts no version of their subjects is. Any version will do:
 * while a new build is rolled out, the old one runs beside it. Of a contract
 * whose imports are not registered it is only seen whether it has versions.
 *
 * @throws AppError INVALID_ARGUMENT, INVALID_SCHEMA
 */
export async function findUnregistered(
  { store }: Pick<RegistryDeps, "store">,
  orgId: string,
  contracts: readonly Contract[],
): Promise<Unregistered> {
  assertContractSet(contracts);
  return store.read(orgId, async (view) => {
    const absent: string[] = [];
    const different: string[] = [];
    const versions = new Map<string, number>();
    for (const contract of contracts) {
      const references = contract.imports.flatMap((path) => {
        const version = versions.get(path);
        return version === undefined ? [] : [{ name: path, subject: path, version }];
      });
      const isLinked = references.length === contract.imports.length;
      const schemaId = isLinked ? await findSchema(view, contract.schema, references) : undefined;
      for (const subject of subjectsOf(contract)) {
        const live = (await view.versions(subject)).filter(({ deleted }) => !deleted);
        const found = live.find((row) => row.schemaId === schemaId);
        if (live.length === 0) absent.push(subject);
        else if (found === undefined && isLinked) different.push(subject);
        else if (found !== undefined && subject === contract.path) versions.set(subject, found.version);
      }
    }
    return { absent, different };
  });
}

async function findSchema(
  view: RegistryView,
  schema: string,
  references: readonly Reference[],
): Promise<number | undefined> {
  const resolved = await resolveSchema(view, { type: "PROTOBUF", schema, references, normalize: false });
  return view.schemaIdOf(resolved.schema.digest);
}
