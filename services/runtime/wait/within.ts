/**
 * Waits for work, but no longer than a time, in milliseconds. After that
 * `onLate` decides: what it returns or throws is the outcome. The work itself
 * goes on, and nobody hears of its failure any more.
 */
export async function within<T, L>(timeoutMs: number, work: Promise<T>, onLate: () => L): Promise<T | L> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, timeoutMs);
  try {
    return await Promise.race([work, late.promise.then(onLate)]);
  } finally {
    clearTimeout(timer);
  }
}
