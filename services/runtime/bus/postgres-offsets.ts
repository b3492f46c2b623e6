import { type Kysely, sql } from "kysely";
import type { GroupPosition, Place } from "./group-position.ts";

/** Where the groups of the bus in PostgreSQL are; only one group if it is named. */
export async function listPositions(
  engine: Kysely<Record<never, never>>,
  topics: readonly string[],
  onlyGroup?: string,
): Promise<readonly GroupPosition[]> {
  const { rows } = await sql<PositionRow>`select * from list_positions(${onlyGroup ?? null})`.execute(engine);
  return rows
    .filter(({ topic }) => topics.includes(topic))
    .map(({ group, topic, partition, next_offset: next, end_offset: end, lag }) => ({
      group,
      topic,
      partition,
      next,
      end,
      lag,
    }));
}

/** What came of moving a group: `unknown` if none of that name follows the topic, `in use` while members of it run. */
export type Moved = "moved" | "unknown" | "in use";

/** Moves a group in a topic, in all partitions at once. */
export async function resetOffsets(
  engine: Kysely<Record<never, never>>,
  group: string,
  topic: string,
  to: Place,
): Promise<Moved> {
  const [place, since] = to instanceof Date ? ["since", to] : [to, null];
  const { rows } = await sql<{ done: Moved }>`
    select reset_positions(${group}, ${topic}, ${place}, ${since}) as done`.execute(engine);
  return rows[0]?.done ?? "unknown";
}

interface PositionRow {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly next_offset: bigint;
  readonly end_offset: bigint;
  readonly lag: bigint;
}
