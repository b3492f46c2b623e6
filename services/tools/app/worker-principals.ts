import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";

/** Whether the principals of connected workers may still act. */
export interface WorkerPrincipals {
  /**
   * Costs nothing while nothing changed.
   *
   * @throws AppError PRINCIPAL_REVOKED; UNAVAILABLE if it cannot be found out
   */
  assertMayAct(principal: Principal): Promise<unknown>;
  /** Calls `wake` when a principal may have lost its rights, until the returned function is called. */
  onChange(wake: () => void): () => void;
}
