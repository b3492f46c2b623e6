import type { CommandReply } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";

/** How many commands of one root wait at most. */
const maxWaiting = 256;

/** Has the commands of one root executed one after the other, in the order in which they came. */
export class Mailbox {
  readonly #onDone: () => void;
  readonly #commandIds = new Set<string>();
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** @param onDone told after each command */
  constructor(onDone: () => void) {
    this.#onDone = onDone;
  }

  /** Whether nothing waits or is executed. */
  get empty(): boolean {
    return this.#waiting === 0;
  }

  /**
   * Executes a command when those before it are done. One of the inbox, which
   * has an id, is not begun again while it is executed: that gives undefined.
   *
   * @throws AppError BACKPRESSURE, or what the execution throws
   */
  post(execute: () => Promise<CommandReply>, commandId: string | undefined): Promise<CommandReply | undefined> {
    if (commandId !== undefined && this.#commandIds.has(commandId)) return Promise.resolve(undefined);
    if (this.#waiting >= maxWaiting) {
      return Promise.reject(new AppError("BACKPRESSURE", "too many commands wait", { retryAfterMs: 1_000 }));
    }
    if (commandId !== undefined) this.#commandIds.add(commandId);
    this.#waiting += 1;
    const result = this.#last.then(execute);
    this.#last = result
      .catch(() => undefined) // its caller gets it
      .then(() => {
        this.#waiting -= 1;
        if (commandId !== undefined) this.#commandIds.delete(commandId);
        this.#onDone();
      });
    return result;
  }

  /** Resolves when what came so far is done. */
  async settled(): Promise<void> {
    await this.#last;
  }
}
