/**
 * Carries facts from the services that state them to whoever follows them.
 *
 * 1. An event that `publish` answered is on disk, and is delivered to every
 *    group at least once. It may come again: handlers know a repetition by
 *    `eventIdOf` its headers.
 * 2. Events of one key are in one partition, and a group gets a partition's
 *    events in order, one at a time.
 * 3. Nothing is skipped: an event whose handler fails is delivered again, with
 *    growing pauses, and its partition waits.
 */
export interface EventBus {
  /**
   * Adds events in the given order; resolves when they are durable. All or
   * nothing for each partition. After an error the caller publishes the same
   * events again.
   *
   * @throws AppError UNAVAILABLE if the bus cannot be reached
   */
  publish(events: readonly BusEvent[]): Promise<void>;
  /**
   * Follows a topic as a member of a consumer group, from the group's last
   * position, or the oldest event for a new group. The members of a group, in
   * whatever process, share the partitions out among themselves.
   */
  subscribe(options: SubscribeOptions): Subscription;
  /** Ends all subscriptions, then the connection. Idempotent. */
  close(): Promise<void>;
}

/** An event on its way: an envelope around bytes. */
export interface BusEvent {
  readonly topic: string;
  /** `<org id>:<session or run id>`; decides the partition. */
  readonly key: string;
  /** The envelope's fields; see `envelope.ts`. */
  readonly headers: Readonly<Record<string, string>>;
  /** Confluent wire format; see `wire-codec.ts`. */
  readonly value: Uint8Array;
}

/** An event as a group gets it. */
export interface ReceivedEvent extends BusEvent {
  readonly partition: number;
  /** Its place in the partition, from 0, without gaps. */
  readonly offset: bigint;
  readonly publishedAt: Date;
}

export interface SubscribeOptions {
  readonly topic: string;
  /** For example `gateway.presence`; the position is kept under this name. */
  readonly group: string;
  /**
   * Acknowledges by returning, refuses by throwing. Called for one event of a
   * partition at a time, for several partitions at once.
   *
   * @param signal aborts when the partition was lost to another member, or the subscription ends
   */
  readonly handle: (event: ReceivedEvent, signal: AbortSignal) => Promise<void>;
  /**
   * Told before `handle` which events of a partition come next, in order, at
   * most 100, for work that is cheaper done for many at once. It acknowledges
   * nothing: each event comes to `handle`, or comes here again. What it throws
   * is refused like what `handle` throws.
   */
  readonly prepare?: (events: readonly ReceivedEvent[], signal: AbortSignal) => Promise<void>;
}

export interface Subscription {
  /** Waits for the handlers under way, commits what they acknowledged, and leaves the group. Idempotent. */
  stop(): Promise<void>;
}
