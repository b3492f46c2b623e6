/**
 * How many runs orgs have open, near enough for a limit: counted in the store
 * once a second, and kept up by what this process starts and ends.
 */
export class OpenRunCounts {
  readonly #count: (orgUuid: string, most: number) => Promise<number>;
  readonly #orgs = new Map<string, { open: number; readonly countedMs: number }>();

  /** @param count counts an org's open runs in the store, up to a number */
  constructor(count: (orgUuid: string, most: number) => Promise<number>) {
    this.#count = count;
  }

  /** How many are open, or `most` if there are more. */
  async open(orgUuid: string, most: number): Promise<number> {
    const known = this.#orgs.get(orgUuid);
    if (known !== undefined && performance.now() - known.countedMs < maxAgeMs) return known.open;
    const open = await this.#count(orgUuid, most);
    if (this.#orgs.size >= maxOrgs) this.#orgs.clear();
    this.#orgs.set(orgUuid, { open, countedMs: performance.now() });
    return open;
  }

  started(orgUuid: string): void {
    const known = this.#orgs.get(orgUuid);
    if (known !== undefined) known.open += 1;
  }

  ended(orgUuid: string): void {
    const known = this.#orgs.get(orgUuid);
    if (known !== undefined) known.open -= 1;
  }
}

const maxAgeMs = 1_000;
const maxOrgs = 10_000;
