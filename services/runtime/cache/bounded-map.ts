/**
 * A map of at most `maxEntries`: a new entry pushes out the one that was
 * neither read nor written for the longest time.
 */
export class BoundedMap<K, V> {
  readonly #entries = new Map<K, V>();
  /** Stands before the oldest entry. A new iterator would have to pass all that were deleted. */
  readonly #oldest = this.#entries.keys();
  readonly #maxEntries: number;
  /** Of the entry that was read or written last, which is in its place already. */
  #newest: K | undefined;

  constructor(maxEntries: number) {
    this.#maxEntries = maxEntries;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined || key === this.#newest) return value;
    // A Map iterates in the order of insertion, so the oldest comes first.
    this.#entries.delete(key);
    this.#entries.set(key, value);
    this.#newest = key;
    return value;
  }

  set(key: K, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    this.#newest = key;
    if (this.#entries.size <= this.#maxEntries) return;
    const { value: oldest } = this.#oldest.next();
    if (oldest !== undefined) this.#entries.delete(oldest);
  }

  delete(key: K): void {
    this.#entries.delete(key);
  }

  /** Removes what `unwanted` says. Looks at every entry. */
  deleteWhere(unwanted: (value: V, key: K) => boolean): void {
    for (const [key, value] of this.#entries) if (unwanted(value, key)) this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }
}
