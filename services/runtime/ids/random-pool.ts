import { randomFillSync } from "node:crypto";

/**
 * Cryptographically strong random bytes from a pool that is filled 4 KiB at a
 * time: one call of the system for many ids. Bytes are handed out once. At most
 * 4,096 at a time.
 */
export function createRandomPool(
  fill: (pool: Uint8Array) => void = (pool) => randomFillSync(pool),
): (bytes: number) => Uint8Array {
  const pool = new Uint8Array(4_096);
  let used = pool.length;
  return (bytes) => {
    if (bytes > pool.length) throw new RangeError(`at most ${pool.length} random bytes at a time`);
    if (used + bytes > pool.length) {
      fill(pool);
      used = 0;
    }
    const taken = pool.slice(used, used + bytes);
    // What was handed out does not stay behind.
    pool.fill(0, used, used + bytes);
    used += bytes;
    return taken;
  };
}

/** The pool of the process. */
export const randomPool: (bytes: number) => Uint8Array = createRandomPool();
