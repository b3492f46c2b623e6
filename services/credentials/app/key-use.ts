import type { Kysely } from "kysely";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { markUsed } from "../store/key-store.ts";
import type { CredentialsSchema } from "../store/schema.ts";

/** Notes when keys were used last, apart from the calls that use them. */
export interface KeyUse {
  /** A key was used now. Costs nothing more than once a minute. */
  note(keyId: string): void;
  /** Writes what was noted. */
  flush(): Promise<void>;
  /** Writes what was noted, and ends. */
  stop(): Promise<void>;
}

export interface KeyUseOptions {
  readonly engine: Kysely<CredentialsSchema>;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const precisionMs = 60_000;
const flushEveryMs = 5_000;
/** Further keys wait for their next use. */
const maxPending = 10_000;

/** Batches of at most one time a key a minute, written every five seconds. */
export function createKeyUse(options: KeyUseOptions): KeyUse {
  const now = options.now ?? Date.now;
  const notedAt = new BoundedMap<string, number>(maxPending);
  let pending = new Map<string, Date>();

  async function flush(): Promise<void> {
    if (pending.size === 0) return;
    const uses = pending;
    pending = new Map();
    try {
      await markUsed(options.engine, uses);
    } catch (thrown) {
      // When a key was used last is worth no failure; it is noted again a minute on.
      options.log.warn({ err: thrown }, "the last use of keys could not be written");
    }
  }

  const timer = setInterval(() => void flush(), flushEveryMs).unref();
  return {
    note(keyId) {
      const time = now();
      const last = notedAt.get(keyId);
      if (last !== undefined && time - last < precisionMs) return;
      if (pending.size >= maxPending) return;
      notedAt.set(keyId, time);
      pending.set(keyId, new Date(time));
    },
    flush,
    async stop() {
      clearInterval(timer);
      await flush();
    },
  };
}
