import { createHash } from "node:crypto";
import type { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import { assertContractSet, type Contract, subjectsOf } from "../domain/contract-set.ts";
import type { RegistryView, VersionRow } from "../store/registry-store.ts";
import type { RegistryDeps } from "./deps.ts";
import { resolveSchema } from "./link-schema.ts";

/** The subjects that do not have a contract. */
export interface Unregistered {
  /** Those without versions. */
  readonly absent: readonly string[];
  /** Those whose versions are all something else. */
  readonly different: readonly string[];
}

/** The digests of contracts that were compiled before: services ask again and again for the same ones. */
export type KnownDigests = Pick<BoundedMap<string, Uint8Array>, "get" | "set">;

/**
 * Finds which contracts no version of their subjects is. Any version will do:
 * while a new build is rolled out, the old one runs beside it. Of a contract
 * whose imports are not registered it is only seen whether it has versions.
 *
 * @throws AppError INVALID_ARGUMENT, INVALID_SCHEMA
 */
export async function findUnregistered(
  { store }: Pick<RegistryDeps, "store">,
  known: KnownDigests,
  orgId: string,
  contracts: readonly Contract[],
): Promise<Unregistered> {
  assertContractSet(contracts);
  return store.read(orgId, async (view) => {
    const absent: string[] = [];
    const different: string[] = [];
    /** What is registered, by the path that others import. */
    const registered = new Map<string, VersionRow>();
    for (const contract of contracts) {
      const imported = contract.imports.flatMap((path) => registered.get(path) ?? []);
      const isLinked = imported.length === contract.imports.length;
      const digest = isLinked ? await digestOf(view, known, contract, imported) : undefined;
      const schemaId = digest && (await view.schemaIdOf(digest));
      for (const subject of subjectsOf(contract)) {
        const live = (await view.versions(subject)).filter(({ deleted }) => !deleted);
        const found = live.find((row) => row.schemaId === schemaId);
        if (live.length === 0) absent.push(subject);
        else if (found === undefined && isLinked) different.push(subject);
        else if (found !== undefined && subject === contract.path) registered.set(subject, found);
      }
    }
    return { absent, different };
  });
}

/** @param imported what the contract imports, in its order; a schema's id is never given to another */
async function digestOf(
  view: RegistryView,
  known: KnownDigests,
  { schema, imports }: Contract,
  imported: readonly VersionRow[],
): Promise<Uint8Array> {
  const named = imported.map(({ subject, version, schemaId }) => ({ subject, version, schemaId }));
  const key = createHash("sha256")
    .update(JSON.stringify([schema, imports, named]))
    .digest("base64");
  const before = known.get(key);
  if (before !== undefined) return before;
  const references = imported.map(({ subject, version }) => ({ name: subject, subject, version }));
  const resolved = await resolveSchema(view, { type: "PROTOBUF", schema, references, normalize: false });
  known.set(key, resolved.schema.digest);
  return resolved.schema.digest;
}
