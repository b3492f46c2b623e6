/**
 * Starts the runs of the schedules whose shards this process owns. One timer
 * stands for all of them, at the time that an index gives; what changes a
 * schedule, brings shards or ends a run that is waited for makes it look again.
 */
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { Companion } from "../app/engine.ts";
import type { EventFeed, FeedReader } from "../app/event-feed.ts";
import { scheduleChannel } from "../store/schedule-store.ts";
import { type FireDeps, fireSchedule } from "./fire-schedule.ts";

export interface SchedulerOptions extends FireDeps {
  /** The shards of this process. */
  readonly shards: () => readonly number[];
  /** Wakes readers of runs. */
  readonly feed: Pick<EventFeed, "open">;
  /** For notifications of changed schedules. */
  readonly notifications: Pick<Database<unknown>, "listen">;
  readonly log: Logger;
  /** Calls back when so many milliseconds went by; gives what forgets it. Default: the system's timers. */
  readonly after?: (ms: number, callback: () => void) => () => void;
}

const page = 256;
/** How many schedules are dealt with at once. */
const atOnce = 8;
/** How many times of one schedule are dealt with before it is another one's turn. */
const timesInARow = 32;
/** What a timer can wait, in milliseconds. */
const maxTimerMs = 2 ** 31 - 1;
/** After a failure, doubled each time, in milliseconds. */
const againMs = { first: 250, most: 15_000 } as const;
/** A run that is waited for is looked at that often, should the news of its end get lost, in milliseconds. */
const lookAtRunMs = 30_000;

/** Fires schedules in time. */
export class Scheduler implements Companion {
  readonly #options: SchedulerOptions;
  readonly #after: NonNullable<SchedulerOptions["after"]>;
  readonly #stopping = new AbortController();
  readonly #waiting = new Map<string, FeedReader>();
  #forget: () => void = () => undefined;
  #looking: Promise<void> | undefined;
  #again = false;
  #againMs: number = againMs.first;
  #unlisten: () => Promise<void> = async () => undefined;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#after =
      options.after ??
      ((ms, callback) => {
        const timer = setTimeout(callback, ms);
        return () => clearTimeout(timer);
      });
  }

  /** Begins to look, now and when a schedule changes. */
  async start(): Promise<void> {
    const look = (): void => void this.look();
    this.#unlisten = await this.#options.notifications.listen(scheduleChannel, look, look);
    look();
  }

  onShards(): void {
    void this.look();
  }

  /** Looks now. Calls meanwhile share one more look. Never throws. */
  look(): Promise<void> {
    if (this.#looking !== undefined) {
      this.#again = true;
      return this.#looking;
    }
    this.#looking = this.#lookUntilDone().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  /** Starts nothing any more, and waits for what is under way. */
  async stop(): Promise<void> {
    this.#stopping.abort(new AppError("SHUTTING_DOWN", "the process is shutting down"));
    this.#forget();
    await this.#unlisten();
    for (const reader of this.#waiting.values()) reader.close();
    await this.#looking;
  }

  async #lookUntilDone(): Promise<void> {
    do {
      this.#again = false;
      this.#forget();
      if (this.#stopping.signal.aborted) return;
      let waitMs: number | undefined;
      try {
        const done = await this.#fireDue();
        waitMs = done ? await this.#untilNext() : this.#nextTry();
        if (done) this.#againMs = againMs.first;
      } catch (error) {
        this.#options.log.warn({ err: error }, "what is scheduled cannot be looked up yet");
        waitMs = this.#nextTry();
      }
      if (waitMs !== undefined && !this.#stopping.signal.aborted) {
        this.#forget = this.#after(Math.min(waitMs, maxTimerMs), () => void this.look());
      }
    } while (this.#again);
  }

  #nextTry(): number {
    const waitMs = this.#againMs;
    this.#againMs = Math.min(waitMs * 2, againMs.most);
    return waitMs;
  }

  async #untilNext(): Promise<number | undefined> {
    const { schedules, shards, now } = this.#options;
    const dueMs = await schedules.nextDue(shards(), 0);
    return dueMs === undefined ? undefined : Math.max(0, dueMs - now());
  }

  /** Whether nothing of it has to be tried again. */
  async #fireDue(): Promise<boolean> {
    const { schedules, shards, now } = this.#options;
    const due = [...(await schedules.listDue(shards(), now(), page))];
    let done = due.length < page;
    const work = async (): Promise<void> => {
      for (let scheduleId = due.shift(); scheduleId !== undefined; scheduleId = due.shift()) {
        if (this.#stopping.signal.aborted) return;
        if (!(await this.#fire(scheduleId))) done = false;
      }
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    return done;
  }

  async #fire(scheduleId: string): Promise<boolean> {
    try {
      for (let times = 0; times < timesInARow; times += 1) {
        const { again, waitsFor } = await fireSchedule(this.#options, scheduleId, this.#stopping.signal);
        for (const runUuid of waitsFor) this.#lookAtEndOf(runUuid);
        if (!again) return true;
      }
      this.#again = true;
      return true;
    } catch (error) {
      if (this.#stopping.signal.aborted) return true;
      this.#options.log.warn({ err: error, scheduleId }, "a schedule could not be dealt with; it is tried again");
      return false;
    }
  }

  /** Looks again when something of a run was stored, as its end may be. */
  #lookAtEndOf(runUuid: string): void {
    if (this.#waiting.has(runUuid)) return;
    const reader = this.#options.feed.open(runUuid);
    this.#waiting.set(runUuid, reader);
    void reader.next(lookAtRunMs, this.#stopping.signal).then(() => {
      reader.close();
      this.#waiting.delete(runUuid);
      if (!this.#stopping.signal.aborted) void this.look();
    });
  }
}
