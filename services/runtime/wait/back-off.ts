/** How long something that failed is left alone before it is tried again. */
export interface BackOff {
  /** After the first failure, in milliseconds; it doubles with each further one. */
  readonly firstMs: number;
  /** At most, in milliseconds. */
  readonly mostMs: number;
}

/** 2 to the power of this already exceeds every bound; more would overflow. */
const maxDoublings = 30;

/**
 * The wait after so many failures in a row, in milliseconds: exponential, with
 * a random half, so that those who failed together do not come back together.
 *
 * @param failures from 1 on
 * @param random in [0, 1)
 */
export function backOffMs(failures: number, { firstMs, mostMs }: BackOff, random: () => number = Math.random): number {
  const ceiling = Math.min(firstMs * 2 ** Math.min(failures - 1, maxDoublings), mostMs);
  return ceiling * (0.5 + random() / 2);
}
