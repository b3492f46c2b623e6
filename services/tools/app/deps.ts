import type { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import type { Limits } from "../../runtime/identity/limits.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { CallStore } from "../store/call-store.ts";
import type { ToolStore } from "../store/tool-store.ts";
import type { WakeUps } from "../store/wake-ups.ts";
import type { WorkerStore } from "../store/worker-store.ts";
import type { BuiltInCatalog } from "./built-in-catalog.ts";
import type { CallAudit } from "./call-audit.ts";
import type { DefinitionCache } from "./definition-cache.ts";
import type { RunningBuiltIns } from "./running-built-ins.ts";
import type { WorkerPrincipals } from "./worker-principals.ts";

/** The definition that a hand-out's call has. */
export interface Handout {
  readonly toolId: string;
  readonly digest: string;
}

/** Where a hand-out stands among `ToolsDeps.handouts`. */
export function handoutKey(workerId: string, handoutId: string): string {
  return `${workerId} ${handoutId}`;
}

/** What the use cases of this service work with. */
export interface ToolsDeps {
  readonly tools: ToolStore;
  readonly workers: WorkerStore;
  readonly calls: CallStore;
  readonly wakeUps: WakeUps;
  readonly builtIns: BuiltInCatalog;
  readonly running: RunningBuiltIns;
  readonly definitions: DefinitionCache;
  /** The definitions of hand-outs that this replica brought to a worker, by worker and hand-out. */
  readonly handouts: BoundedMap<string, Handout>;
  readonly principals: WorkerPrincipals;
  readonly limits: Limits;
  readonly audit: CallAudit;
  /** Tells all replicas to stop a call that has no record. */
  readonly announceStop: (orgId: string, key: string) => Promise<void>;
  /** Aborts when the replica goes away. */
  readonly stopping: AbortSignal;
  readonly log: Logger;
}
