/** Between two counts of an org that starts runs. */
const recountMs = 1_000;
const maxOrgs = 10_000;

interface Count {
  open: number;
  readonly countedMs: number;
}

/**
 * How many runs orgs have open, near enough for a limit: counted in the store
 * once a second, and kept up by what this process starts and ends. Starts at
 * the same time are answered from one count.
 */
export class OpenRunCounts {
  readonly #count: (orgUuid: string, most: number) => Promise<number>;
  readonly #counts = new Map<string, Count>();
  readonly #counting = new Map<string, Promise<Count>>();

  /** @param count counts an org's open runs in the store, up to a number */
  constructor(count: (orgUuid: string, most: number) => Promise<number>) {
    this.#count = count;
  }

  /** How many are open, or `most` if there are more. */
  async open(orgUuid: string, most: number): Promise<number> {
    const known = this.#counts.get(orgUuid);
    if (known !== undefined && performance.now() - known.countedMs < recountMs) return known.open;
    let counting = this.#counting.get(orgUuid);
    if (counting === undefined) {
      counting = this.#recount(orgUuid, most).finally(() => this.#counting.delete(orgUuid));
      this.#counting.set(orgUuid, counting);
    }
    return (await counting).open;
  }

  started(orgUuid: string): void {
    const known = this.#counts.get(orgUuid);
    if (known !== undefined) known.open += 1;
  }

  ended(orgUuid: string): void {
    const known = this.#counts.get(orgUuid);
    if (known !== undefined) known.open -= 1;
  }

  async #recount(orgUuid: string, most: number): Promise<Count> {
    const count = { open: await this.#count(orgUuid, most), countedMs: performance.now() };
    if (this.#counts.size >= maxOrgs) this.#counts.clear();
    this.#counts.set(orgUuid, count);
    return count;
  }
}
