/** Where a group is in a partition. */
export interface PartitionPosition {
  readonly partition: number;
  /** The next offset that the group gets; undefined if it has acknowledged nothing yet. */
  readonly next: bigint | undefined;
  /** The offset that the next event will have. */
  readonly end: bigint;
  /** Events that are not acknowledged, and are still there. */
  readonly lag: bigint;
}

/** Where one of several groups is. */
export interface GroupPosition extends PartitionPosition {
  readonly group: string;
  readonly topic: string;
}

/** Where a group is moved to: the oldest event, past the newest, or the first event at or after a time. */
export type Place = "earliest" | "latest" | Date;
