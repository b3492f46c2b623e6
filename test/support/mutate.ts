import { existsSync } from "node:fs";
import { InfrastructureError } from "./fault-driver.ts";
import { readLines } from "./ledger.ts";

/** A piece of a module's source and what stands there instead. */
export interface Edit {
  /** The module's path in the repository. */
  readonly module: string;
  /** Text that the module has exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** Protections that a negative control takes away: without them the test of the promise has to fail. */
export const mutations = {
  /** Each attempt of a step calls its tool under a key of its own. */
  "a key for each attempt": [
    {
      module: "services/orchestrator/rpc/tool-client.ts",
      find: "      idempotencyKey: call.stepId,\n",
      replace: "      idempotencyKey: `${call.stepId}-${crypto.randomUUID()}`,\n",
    },
  ],
} as const satisfies Readonly<Record<string, readonly Edit[]>>;

/** A negative control's name. */
export type Mutation = keyof typeof mutations;

/**
 * The environment of a process whose source is changed; its children inherit it.
 *
 * @param log a file that tells which edits were made, for `assertMutated`
 */
export function mutatedEnvironment(edits: readonly Edit[], log: string): Readonly<Record<string, string>> {
  return {
    NODE_OPTIONS: `--import=${new URL("mutate-hook.ts", import.meta.url).href}`,
    MUTATION: JSON.stringify(edits),
    MUTATION_LOG: log,
  };
}

/** Throws InfrastructureError unless every edit was made in some process. */
export function assertMutated(edits: readonly Edit[], log: string): void {
  const made = existsSync(log) ? readLines<Pick<Edit, "module" | "find">>(log) : [];
  for (const { module, find } of edits) {
    if (made.some((edit) => edit.module === module && edit.find === find)) continue;
    throw new InfrastructureError(`no process has loaded ${module} without: ${find}`);
  }
}
