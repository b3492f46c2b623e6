import type { Entry, GraphEnd } from "../domain/entry.ts";
import type { RunState } from "./append-store.ts";

/** A run of a graph as it is stored, with its journal checked. Ids are UUIDs as text. */
export interface StoredGraphRun {
  readonly runId: string;
  readonly state: RunState;
  readonly wakeAtMs: number | undefined;
  readonly head: number;
  readonly chain: Uint8Array;
  readonly entries: readonly Entry[];
}

/** What the owner of a root run needs to go on with it. */
export interface RootState {
  readonly rootId: string;
  readonly orgId: string;
  readonly shard: number;
  /** Runs that have not ended, parents before their children. */
  readonly open: readonly StoredGraphRun[];
  /** Runs whose journals cannot be trusted, and why. */
  readonly damaged: readonly { readonly runId: string; readonly message: string }[];
}

/** Where a run hangs. */
export interface RunPlace {
  readonly rootId: string;
  readonly sessionId: string | undefined;
  readonly state: RunState;
}

/** Reads runs of graphs, for their owner. All throw UNAVAILABLE. */
export interface RunStore {
  /** Everything that the owner of a root needs; undefined if there is no such root, or it is a session. */
  load(rootId: string): Promise<RootState | undefined>;

  /** How a run ended; undefined if it has not, or is gone. Throws DATA_LOSS. */
  findEnd(runId: string): Promise<GraphEnd | undefined>;

  /** Where a run of an org hangs; undefined if the org has none of that id. */
  locate(orgId: string, runId: string): Promise<RunPlace | undefined>;

  /** Root runs in the shards, or with children, that something is under way in. */
  listRunning(shards: readonly number[]): Promise<readonly string[]>;

  /** Root runs in the shards of which something is due, with when it is, the earliest first. */
  listDue(
    shards: readonly number[],
    limit: number,
  ): Promise<readonly { readonly rootId: string; readonly wakeAtMs: number }[]>;

  /** When something is due next in the shards, in milliseconds since the epoch; undefined for never. */
  nextDue(shards: readonly number[]): Promise<number | undefined>;

  /** How many root runs of an org have not ended, up to `most`. */
  countOpen(orgId: string, most: number): Promise<number>;

  /** Parks a run whose journal cannot be gone on with. */
  parkDamaged(writer: bigint, runId: string, view: Uint8Array): Promise<void>;
}
