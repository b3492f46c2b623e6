import type { FieldRead } from "../store/field-read-store.ts";
import type { RegistryDeps } from "./deps.ts";

/** Keeps what consumers say that they read. */
export function reportFieldReads(
  { store }: Pick<RegistryDeps, "store">,
  orgId: string,
  reads: readonly FieldRead[],
): Promise<void> {
  return store.change(orgId, [], ({ fieldReads }) => fieldReads.keep(reads));
}
