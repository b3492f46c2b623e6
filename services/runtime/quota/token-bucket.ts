import { BoundedMap } from "../cache/bounded-map.ts";

/** How fast a bucket fills, and how much it holds. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

/** One bucket of tokens a key. */
export interface TokenBuckets {
  /** Takes a token. Returns 0, or for how many milliseconds there will be none. */
  take(key: string, rate: Rate): number;
  /** For how many milliseconds there will be no token; 0 if there is one. Takes none. */
  waitMs(key: string, rate: Rate): number;
}

export interface TokenBucketsOptions {
  /** The bucket that was not used for longest is forgotten, so full again, when there are more. */
  readonly maxKeys: number;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

/**
 * Buckets in memory, as in GCRA: for each key only the time is kept at which
 * its bucket will be full, so that a call costs one look-up and no timer.
 */
export function createTokenBuckets(options: TokenBucketsOptions): TokenBuckets {
  const now = options.now ?? (() => performance.now());
  const fullAt = new BoundedMap<string, number>(options.maxKeys);

  /** When the bucket would be full after one more token, and how long that is too late by. */
  function next(key: string, rate: Rate): { fullAtMs: number; waitMs: number } {
    const time = now();
    const tokenMs = 1_000 / rate.perSecond;
    const fullAtMs = Math.max(fullAt.get(key) ?? 0, time) + tokenMs;
    // A hair of tolerance: sums of fractions of milliseconds do not come out even.
    const waitMs = fullAtMs - time - rate.burst * tokenMs;
    return { fullAtMs, waitMs: waitMs > 1e-6 ? Math.ceil(waitMs) : 0 };
  }

  return {
    take(key, rate) {
      const { fullAtMs, waitMs } = next(key, rate);
      if (waitMs === 0) fullAt.set(key, fullAtMs);
      return waitMs;
    },
    waitMs: (key, rate) => next(key, rate).waitMs,
  };
}
