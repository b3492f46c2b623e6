import type { Cadre } from "@cadre/sdk";
import type { RunHistory } from "./checker.ts";

/** What fault tests have done, whichever way runs are started. */
export interface Workload {
  /** The steps of each run that have an effect, as the ledger names them. */
  readonly steps: readonly string[];
  /**
   * Asks once for a run under its name as the idempotency key.
   *
   * @returns its id
   * @throws CadreError
   */
  start(cadre: Cadre, run: string): Promise<string>;
  /** Asks once to cancel a run. Throws CadreError. */
  cancel(cadre: Cadre, id: string): Promise<void>;
  /** Whether the server says that the run's journal is damaged, and so not executed. */
  isDamaged(cadre: Cadre, id: string): Promise<boolean>;
  /**
   * Reads a run's history, waiting for its end until the signal aborts; as it
   * is then. `undefined` if the server does not know it.
   */
  history(cadre: Cadre, id: string, signal: AbortSignal): Promise<RunHistory | undefined>;
}
