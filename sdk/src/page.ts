/** A page of a list. */
export interface Page<T> {
  /** What is on it. */
  readonly items: readonly T[];
  /** The token of the next page; empty at the end. */
  readonly nextPageToken: string;
}

/** Which part of a list to read. */
export interface PageOptions {
  /** How many items a page has at most; 50 unless said, at most 200. */
  readonly pageSize?: number | undefined;
  /** The `nextPageToken` of the page before; the first page unless said. Valid for an hour. */
  readonly pageToken?: string | undefined;
  /** Ends the reading: it rejects with `CANCELLED`. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A list. Iterate over all of its items, page after page as they are needed,
 * or read one page.
 *
 * @example
 * ```ts
 * for await (const agent of cadre.agents.list()) console.log(agent.definition?.name);
 * const { items, nextPageToken } = await cadre.agents.list({ pageSize: 10 }).page();
 * ```
 */
export interface Listing<T> extends AsyncIterable<T> {
  /** Reads one page: the one that the options named. */
  page(): Promise<Page<T>>;
}

/** Makes a listing of a function that reads a page. */
export function createListing<T>(options: PageOptions, read: (pageToken: string) => Promise<Page<T>>): Listing<T> {
  const first = options.pageToken ?? "";
  return {
    page: () => read(first),
    async *[Symbol.asyncIterator]() {
      let token = first;
      do {
        const page = await read(token);
        yield* page.items;
        token = page.nextPageToken;
      } while (token !== "");
    },
  };
}
