import { create } from "@bufbuild/protobuf";
import {
  CredentialRevokedSchema,
  HeartbeatSchema,
  LimitsChangedSchema,
  type WatchChangesResponse,
  WatchChangesResponseSchema,
} from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { ChangeStore, NumberedChange } from "../store/change-store.ts";

// How a revocation that was answered holds everywhere. A watcher relies on what
// it remembers during a lease only.
//
// Invariants:
// 1. A lease is granted to a watcher that has acknowledged everything up to the
//    revision that a read of the database has shown as the newest, and ends
//    `leaseMs` after that read BEGAN. So a lease of a watcher that does not know
//    a change ends at most `leaseMs` after the change was committed.
// 2. The watcher counts its lease from when it sent the acknowledgement, which
//    was before it was granted here; so it ends there no later than here.
// 3. A lease outlives its stream here: a watcher that we hear no more of may
//    still rely on it.
// 4. `settle` waits for each watcher of this process to acknowledge the change or
//    to lose its lease. For watchers of other processes, of which it knows
//    nothing, it waits as long as a lease can last (invariant 1).
// 5. Another process that grants leases is seen by `settle`: it announces itself
//    before the reads that leases are granted by, and a read counts only if it
//    ended within `announcementHoldsMs` of an announcement's beginning. When the
//    announcement is older than `otherReplicaMs`, its leases have ended, too.
// 6. All durations are measured on monotonic clocks.

/** How long a watcher may rely on what it remembers. */
export const leaseMs = 1_000;
/** The contract promises one at least every 250 ms. */
const heartbeatMs = 200;
/** Two clocks that count the same second differ by less than that. */
const marginMs = 50;
const announceEveryMs = 1_000;
const announcementHoldsMs = 2_000;
const otherReplicaMs = announcementHoldsMs + leaseMs + 1_000;
/** Where the first read begins: it asks for the newest revision alone. */
const beyondAll = 1n << 62n;
const maxWatchers = 1_000;
const maxQueued = 1_000;

export interface ChangeHubOptions {
  readonly store: ChangeStore;
  /** Unique for each start of the process. */
  readonly processId: string;
  readonly log: Logger;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

/** Tells watchers of changes, and knows when they have heard. */
export interface ChangeHub {
  /**
   * The stream of a watcher: first the revision that it begins at, then changes
   * and heartbeats.
   *
   * @throws AppError UNAVAILABLE if the changes cannot be read, RATE_LIMITED for too many watchers
   */
  watch(watcherId: string, signal: AbortSignal): AsyncGenerator<WatchChangesResponse>;
  /** Notes what a watcher has applied; for how many milliseconds it may rely on what it remembers. */
  acknowledge(watcherId: string, revision: bigint): number;
  /** Looks for changes now; for a notification of the database. */
  poke(): void;
  /**
   * Resolves when no watcher anywhere relies on what it remembered before a
   * revision; after little more than a second at the latest. Call it when the
   * change is committed.
   */
  settle(revision: bigint): Promise<void>;
  stop(): Promise<void>;
}

interface Watcher {
  readonly id: string;
  readonly queue: WatchChangesResponse[];
  /** Wakes the stream; undefined while it is not waiting. */
  wake: (() => void) | undefined;
  /** Why the stream must end, if it must. */
  failure: AppError | undefined;
  /** Whether its stream has ended; it stays until its lease does. */
  gone: boolean;
  acknowledged: bigint;
  leaseEndsAt: number;
}

export function createChangeHub(options: ChangeHubOptions): ChangeHub {
  const { store, log, processId } = options;
  const now = options.now ?? (() => performance.now());
  const watchers = new Map<string, Watcher>();
  /** Woken whenever a lease may have ended or something was acknowledged. */
  const settling = new Set<() => void>();
  let newest: bigint | undefined;
  let readBeganAt = Number.NEGATIVE_INFINITY;
  let announcementBeganAt = Number.NEGATIVE_INFINITY;
  let stopped = false;
  let poked = false;
  let wakeLoop: (() => void) | undefined;

  async function round(): Promise<void> {
    if (now() - announcementBeganAt > announceEveryMs) {
      const beganAt = now();
      await store.announce(processId);
      announcementBeganAt = beganAt;
    }
    const beganAt = now();
    const read = await store.readAfter(newest ?? beyondAll);
    broadcast(newest, read);
    newest = read.newest;
    wakeSettling();
    // Invariant 5: the process may have been stopped between the two.
    if (now() - announcementBeganAt < announcementHoldsMs) readBeganAt = beganAt;
  }

  function broadcast(before: bigint | undefined, read: { newest: bigint; changes: readonly NumberedChange[] }): void {
    // Nobody watches before the first read.
    if (before === undefined) return;
    const isGapless = read.newest - before === BigInt(read.changes.length);
    for (const watcher of watchers.values()) {
      if (watcher.gone) continue;
      if (!isGapless) {
        fail(watcher, "changes were missed; begin anew");
        continue;
      }
      for (const { revision, change } of read.changes) push(watcher, toResponse(revision, change));
    }
  }

  function heartbeat(): void {
    const time = now();
    for (const [id, watcher] of watchers) {
      if (watcher.gone && watcher.leaseEndsAt <= time) watchers.delete(id);
      else if (!watcher.gone && newest !== undefined) push(watcher, toHeartbeat(newest));
    }
    wakeSettling();
  }

  function push(watcher: Watcher, message: WatchChangesResponse): void {
    if (watcher.queue.length >= maxQueued) return fail(watcher, "the watcher is too slow; begin anew");
    watcher.queue.push(message);
    watcher.wake?.();
  }

  function fail(watcher: Watcher, message: string): void {
    watcher.failure = new AppError("UNAVAILABLE", message);
    watcher.wake?.();
  }

  function wakeSettling(): void {
    for (const wake of settling) wake();
  }

  async function run(): Promise<void> {
    let heartbeatDueAt = now();
    while (!stopped) {
      poked = false;
      try {
        await round();
      } catch (thrown) {
        // No read, no new leases: the watchers ask anew for every call.
        log.warn({ err: thrown }, "changes could not be read");
      }
      if (now() >= heartbeatDueAt) {
        heartbeat();
        heartbeatDueAt = now() + heartbeatMs;
      }
      if (poked || stopped) continue;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(heartbeatDueAt - now(), 1));
        wakeLoop = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      wakeLoop = undefined;
    }
  }

  const running = run();

  function poke(): void {
    poked = true;
    wakeLoop?.();
  }

  /** Whether a watcher of this process acts, or could still be granted to act, on what it knew before. */
  function isOutstanding(revision: bigint): boolean {
    // Until the change was read here, a lease may be granted without it.
    if (newest === undefined || newest < revision) return true;
    const time = now();
    return [...watchers.values()].some(
      (watcher) => watcher.acknowledged < revision && watcher.leaseEndsAt + marginMs > time,
    );
  }

  async function hasOthers(): Promise<boolean> {
    try {
      return (await store.countOthers(processId, otherReplicaMs)) > 0;
    } catch (thrown) {
      log.warn({ err: thrown }, "other replicas could not be counted; the full time is waited");
      return true;
    }
  }

  return {
    poke,
    async *watch(watcherId, signal) {
      if (newest === undefined)
        throw new AppError("UNAVAILABLE", "the changes cannot be read yet", { retryAfterMs: 500 });
      if (stopped) throw new AppError("SHUTTING_DOWN", "the service is shutting down");
      if (watchers.size >= maxWatchers)
        throw new AppError("RATE_LIMITED", "too many watchers", { retryAfterMs: 1_000 });
      if (watchers.has(watcherId)) throw new AppError("ALREADY_EXISTS", "a watcher of that id is there");
      const watcher: Watcher = {
        id: watcherId,
        queue: [toHeartbeat(newest)],
        wake: undefined,
        failure: undefined,
        gone: false,
        acknowledged: -1n,
        leaseEndsAt: Number.NEGATIVE_INFINITY,
      };
      watchers.set(watcherId, watcher);
      const onAbort = (): void => watcher.wake?.();
      signal.addEventListener("abort", onAbort);
      try {
        while (!signal.aborted && !stopped) {
          const message = watcher.queue.shift();
          if (watcher.failure !== undefined) throw watcher.failure;
          if (message !== undefined) {
            yield message;
            continue;
          }
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
          watcher.wake = undefined;
        }
        if (stopped) throw new AppError("SHUTTING_DOWN", "the service is shutting down");
      } finally {
        signal.removeEventListener("abort", onAbort);
        watcher.gone = true;
      }
    },
    acknowledge(watcherId, revision) {
      const watcher = watchers.get(watcherId);
      if (watcher === undefined || watcher.gone) return 0;
      if (revision > watcher.acknowledged) watcher.acknowledged = revision;
      wakeSettling();
      // Invariant 1.
      if (newest === undefined || watcher.acknowledged < newest) return 0;
      const freshForMs = Math.floor(readBeganAt + leaseMs - now());
      if (freshForMs <= 0) return 0;
      watcher.leaseEndsAt = readBeganAt + leaseMs;
      return freshForMs;
    },
    async settle(revision) {
      const allLeasesEndAt = now() + leaseMs + marginMs;
      poke();
      if (!(await hasOthers())) {
        while (isOutstanding(revision) && now() < allLeasesEndAt) await nextWake(allLeasesEndAt - now());
        return;
      }
      while (now() < allLeasesEndAt) await nextWake(allLeasesEndAt - now());
    },
    async stop() {
      stopped = true;
      poke();
      for (const watcher of watchers.values()) watcher.wake?.();
      await running;
      // Best effort: a row that stays makes others wait for a few seconds more.
      await store.withdraw(processId).catch((thrown: unknown) => log.debug({ err: thrown }, "could not withdraw"));
    },
  };

  function nextWake(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        settling.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.ceil(Math.max(timeoutMs, 1)));
      settling.add(wake);
    });
  }
}

function toHeartbeat(revision: bigint): WatchChangesResponse {
  return create(WatchChangesResponseSchema, {
    revision,
    change: { case: "heartbeat", value: create(HeartbeatSchema) },
  });
}

function toResponse(revision: bigint, change: NumberedChange["change"]): WatchChangesResponse {
  switch (change.kind) {
    case "credential_revoked":
      return create(WatchChangesResponseSchema, {
        revision,
        change: {
          case: "credentialRevoked",
          value: create(CredentialRevokedSchema, { subject: change.subject, tokenId: change.tokenId }),
        },
      });
    case "limits_changed":
      return create(WatchChangesResponseSchema, {
        revision,
        change: {
          case: "limitsChanged",
          value: create(LimitsChangedSchema, { orgId: fromUuid("org", change.orgId) }),
        },
      });
  }
}
