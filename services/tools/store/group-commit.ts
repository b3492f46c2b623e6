import { AppError } from "../../runtime/errors/app-error.ts";

/** Items of one group, at most. */
const maxGroup = 200;

interface Waiting<Item, Answer> {
  readonly item: Item;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Lets what many callers ask for share transactions: while a group is under
 * way the next one gathers, so that under load a commit carries many items,
 * and alone nobody waits. One group a key is under way at a time.
 *
 * The work answers each item of its group, or throws for all of them. Where
 * what it threw may be one item's fault, each is tried again alone, so work
 * that failed must have changed nothing.
 */
export class GroupCommit<Item, Answer> {
  readonly #work: (key: string, items: readonly Item[]) => Promise<readonly Answer[]>;
  readonly #waiting = new Map<string, Waiting<Item, Answer>[]>();

  constructor(work: (key: string, items: readonly Item[]) => Promise<readonly Answer[]>) {
    this.#work = work;
  }

  /** Has an item done, in the next group of its key. */
  add(key: string, item: Item): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const asked = { item, resolve, reject };
      const waiting = this.#waiting.get(key);
      if (waiting !== undefined) {
        waiting.push(asked);
        return;
      }
      const queue = [asked];
      this.#waiting.set(key, queue);
      void this.#run(key, queue);
    });
  }

  async #run(key: string, queue: Waiting<Item, Answer>[]): Promise<void> {
    while (queue.length > 0) await this.#settle(key, queue.splice(0, maxGroup));
    this.#waiting.delete(key);
  }

  /** Never rejects. */
  async #settle(key: string, group: readonly Waiting<Item, Answer>[]): Promise<void> {
    try {
      const answers = await this.#work(
        key,
        group.map(({ item }) => item),
      );
      for (const [index, answer] of answers.entries()) group[index]?.resolve(answer);
    } catch (error) {
      // A failure of ours (no connection, no time) is everybody's; any other may be one item's.
      if (group.length === 1 || error instanceof AppError) {
        for (const { reject } of group) reject(error);
      } else {
        for (const alone of group) await this.#settle(key, [alone]);
      }
    }
  }
}
