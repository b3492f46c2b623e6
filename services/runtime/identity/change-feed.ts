import { randomBytes } from "node:crypto";
import type { AuthenticationService, WatchChangesResponse } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Client } from "@connectrpc/connect";
import type { AppError } from "../errors/app-error.ts";
import { toAppError } from "../errors/failure.ts";
import type { Logger } from "../log/log.ts";
import { backOffMs } from "../wait/back-off.ts";

// Invariants:
// 1. What a listener remembers may be relied on only while `isFresh()`. The
//    time that this holds is counted from when the acknowledgement was sent,
//    and the server counts from when it took it, so it ends here first.
// 2. A change is applied by every listener before it is acknowledged.
// 3. A new stream may have missed changes: everything remembered is dropped
//    before its first acknowledgement.
// 4. Time is monotonic (`performance.now`): a clock that is set back makes
//    nothing fresh.

/** A credential that is valid no more. */
export interface RevokedCredential {
  /** As in `Principal.subject`; of a single JWT what that begins with. */
  readonly subject: string;
  /** The JWT's id if only that one ended; empty for all of the subject. */
  readonly tokenId: string;
}

/** Whether a credential is the one that ended. */
export function isRevoked(
  credential: { readonly subject: string; readonly tokenId: string },
  { subject, tokenId }: RevokedCredential,
): boolean {
  if (tokenId === "") return credential.subject === subject;
  return credential.tokenId === tokenId && credential.subject.startsWith(subject);
}

/** What to do when something changed. Runs at once, before the change is acknowledged; must not throw. */
export interface ChangeListener {
  /** A credential ended: forget what was allowed to it. */
  onRevoked?(revoked: RevokedCredential): void;
  /** The limits of an org changed: forget them. */
  onLimitsChanged?(orgId: string): void;
  /** Changes may have been missed: forget everything. */
  onReset(): void;
}

/** What credentials tells every process of changes, as they happen. */
export interface ChangeFeed {
  /** Whether what was remembered may be relied on now. */
  isFresh(): boolean;
  /** Why credentials could not be heard or told last; undefined since it was fresh again. */
  readonly failure: AppError | undefined;
  /** The revision up to which changes were applied. */
  readonly revision: bigint;
  /** Adds a listener; returns what removes it. */
  listen(listener: ChangeListener): () => void;
  /** Resolves when the feed is fresh for the first time from now. */
  whenFresh(signal?: AbortSignal): Promise<void>;
  /** Ends the stream. */
  stop(): Promise<void>;
}

export interface ChangeFeedOptions {
  readonly client: Pick<Client<typeof AuthenticationService>, "watchChanges" | "acknowledgeChanges">;
  /** Unique for each start of the process. */
  readonly processId: string;
  readonly log: Logger;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

/** Heartbeats come every 250 ms; a stream that was silent for so long, or takes so long to begin, is given up. */
const silenceMs = 2_000;
const acknowledgeTimeoutMs = 1_000;
const waits = { firstMs: 50, mostMs: 1_000 } as const;

/** Watches the changes, and reconnects for as long as it is not stopped. */
export function createChangeFeed(options: ChangeFeedOptions): ChangeFeed {
  const { client, log } = options;
  const now = options.now ?? (() => performance.now());
  const listeners = new Set<ChangeListener>();
  const waiting = new Set<() => void>();
  const stopping = new AbortController();
  // A process has several feeds when it runs several services.
  const name = `${options.processId.slice(0, 40)}.${randomBytes(4).toString("hex")}`;
  let revision = 0n;
  let freshUntil = Number.NEGATIVE_INFINITY;
  let connections = 0;
  let failure: AppError | undefined;

  /** One stream, from its beginning to its end. */
  async function watch(): Promise<void> {
    const ended = new AbortController();
    const signal = AbortSignal.any([stopping.signal, ended.signal]);
    const watcherId = `${name}.${++connections}`;
    const silence = setTimeout(() => ended.abort(new Error("no heartbeat")), silenceMs);
    let isFirst = true;
    let acknowledging = false;
    try {
      for await (const change of client.watchChanges({ watcherId }, { signal })) {
        silence.refresh();
        if (isFirst) reset();
        isFirst = false;
        apply(change);
        revision = change.revision;
        // One at a time: the next one says all that this one would have.
        if (acknowledging) continue;
        acknowledging = true;
        void acknowledge(watcherId, signal)
          .catch((thrown: unknown) => {
            if (signal.aborted) return;
            failure = toAppError(thrown);
            log.debug({ err: thrown }, "a change could not be acknowledged");
          })
          .finally(() => {
            acknowledging = false;
          });
      }
    } finally {
      clearTimeout(silence);
      ended.abort();
      freshUntil = Number.NEGATIVE_INFINITY;
    }
  }

  async function acknowledge(watcherId: string, signal: AbortSignal): Promise<void> {
    let acknowledged: bigint;
    do {
      acknowledged = revision;
      const sentAt = now();
      const { freshForMs } = await client.acknowledgeChanges(
        { watcherId, revision: acknowledged },
        { signal, timeoutMs: acknowledgeTimeoutMs },
      );
      if (signal.aborted) return;
      freshUntil = Math.max(freshUntil, sentAt + freshForMs);
      if (!isFresh()) continue;
      failure = undefined;
      for (const resolve of waiting) resolve();
    } while (acknowledged !== revision);
  }

  function reset(): void {
    for (const listener of listeners) listener.onReset();
  }

  function apply({ change }: WatchChangesResponse): void {
    switch (change.case) {
      case "credentialRevoked":
        for (const listener of listeners) listener.onRevoked?.(change.value);
        return;
      case "limitsChanged":
        for (const listener of listeners) listener.onLimitsChanged?.(change.value.orgId);
        return;
      case "heartbeat":
        return;
      case undefined:
        // A change of a newer version: what it touches is not known.
        reset();
    }
  }

  const isFresh = (): boolean => now() < freshUntil;

  async function run(): Promise<void> {
    let failures = 0;
    while (!stopping.signal.aborted) {
      const startedAt = now();
      try {
        await watch();
      } catch (thrown) {
        if (stopping.signal.aborted) return;
        failure = toAppError(thrown);
        log.debug({ err: thrown }, "the stream of changes broke");
      }
      // A stream that lived for a while ended for a reason of its own, such as its deadline.
      failures = now() - startedAt > silenceMs ? 1 : failures + 1;
      await pause(backOffMs(failures, waits), stopping.signal);
    }
  }

  const running = run();
  return {
    isFresh,
    get failure() {
      return failure;
    },
    get revision() {
      return revision;
    },
    listen(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    whenFresh(signal) {
      if (isFresh()) return Promise.resolve();
      return new Promise((resolve, reject) => {
        const onAbort = (): void => {
          waiting.delete(onFresh);
          reject(signal?.reason);
        };
        const onFresh = (): void => {
          waiting.delete(onFresh);
          signal?.removeEventListener("abort", onAbort);
          resolve();
        };
        if (signal?.aborted === true) return reject(signal.reason);
        signal?.addEventListener("abort", onAbort, { once: true });
        waiting.add(onFresh);
      });
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

/** Resolves after a time, or when the signal aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}
