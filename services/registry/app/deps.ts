import type { Limits } from "../../runtime/identity/limits.ts";
import type { RegistryStore } from "../store/registry-store.ts";

/** What the use cases need. */
export interface RegistryDeps {
  readonly store: RegistryStore;
  readonly limits: Limits;
}
