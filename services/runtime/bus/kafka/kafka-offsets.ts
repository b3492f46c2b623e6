import type { Admin, Kafka } from "kafkajs";
import { within } from "../../wait/within.ts";
import type { GroupPosition, PartitionPosition, Place } from "../group-position.ts";
import { KafkaProblem } from "./kafka-problem.ts";

/** How long a fetch waits for events that nobody wants. */
const maxFetchWaitMs = 50;
const joinTimeoutMs = 30_000;

/**
 * The name of a consumer group in Kafka: a group has its position in each topic
 * by itself, and its members of one topic know nothing of those of another.
 */
export function kafkaGroupOf(group: string, topic: string): string {
  return `${group}.${topic}`;
}

/** Where a group is in each partition of a topic. */
export async function positionsOf(admin: Admin, group: string, topic: string): Promise<readonly PartitionPosition[]> {
  const ends = await admin.fetchTopicOffsets(topic);
  const [committed] = await admin.fetchOffsets({ groupId: kafkaGroupOf(group, topic), topics: [topic] });
  const next = new Map(committed?.partitions.map(({ partition, offset }) => [partition, BigInt(offset)]));
  return ends
    .map(({ partition, high, low }) => {
      const position = next.get(partition) ?? -1n;
      const from = position < BigInt(low) ? BigInt(low) : position;
      return {
        partition,
        next: position < 0n ? undefined : position,
        end: BigInt(high),
        lag: BigInt(high) - from,
      };
    })
    .sort((one, other) => one.partition - other.partition);
}

/** Events of a topic that a group has not acknowledged. */
export async function lagOf(admin: Admin, group: string, topic: string): Promise<number> {
  const positions = await positionsOf(admin, group, topic);
  return positions.reduce((sum, { lag }) => sum + Number(lag), 0);
}

/** Where the groups that follow some topics are; only one group if it is named. */
export async function listPositions(
  admin: Admin,
  topics: readonly string[],
  onlyGroup?: string,
): Promise<readonly GroupPosition[]> {
  const { groups } = await admin.listGroups();
  const rows: GroupPosition[] = [];
  for (const topic of topics) {
    const ending = kafkaGroupOf("", topic);
    for (const { groupId } of groups) {
      const group = groupId.endsWith(ending) ? groupId.slice(0, -ending.length) : "";
      if (group === "" || (onlyGroup !== undefined && group !== onlyGroup)) continue;
      for (const position of await positionsOf(admin, group, topic)) rows.push({ group, topic, ...position });
    }
  }
  return rows;
}

/**
 * Moves a group in a topic: to the oldest event, past the newest, or to the
 * first event at or after a time. Refused while members run.
 */
export async function resetOffsets(admin: Admin, kafka: Kafka, group: string, topic: string, to: Place): Promise<void> {
  const ends = await admin.fetchTopicOffsets(topic);
  const places =
    to instanceof Date
      ? await admin.fetchTopicOffsetsByTimestamp(topic, to.getTime())
      : ends.map(({ partition, low, high }) => ({ partition, offset: to === "earliest" ? low : high }));
  // Where nothing is that young, kafkajs says -1 or the end.
  const partitions = places.map(({ partition, offset }) => ({
    partition,
    offset: BigInt(offset) < 0n ? (ends.find((end) => end.partition === partition)?.high ?? "0") : offset,
  }));
  const groupId = kafkaGroupOf(group, topic);
  const { groups } = await admin.describeGroups([groupId]);
  if (groups.some(({ members }) => members.length > 0)) {
    throw new KafkaProblem("failed", "the group has members that run", "Stop them first.");
  }
  await commitOffsets(kafka, groupId, topic, partitions);
}

/**
 * Commits positions as the only member of a group. `admin.setOffsets` does so,
 * too, and waits for a fetch of five seconds first.
 */
async function commitOffsets(
  kafka: Kafka,
  groupId: string,
  topic: string,
  partitions: readonly { readonly partition: number; readonly offset: string }[],
): Promise<void> {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: maxFetchWaitMs, retry: { retries: 3 } });
  const joined = Promise.withResolvers<void>();
  joined.promise.catch(() => undefined); // thrown where it is waited for, unless `run` has thrown before
  consumer.on(consumer.events.GROUP_JOIN, () => joined.resolve());
  consumer.on(consumer.events.CRASH, ({ payload }) => joined.reject(payload.error));
  try {
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: async () => undefined });
    await within(joinTimeoutMs, joined.promise, () => {
      throw new KafkaProblem("failed", `the group ${groupId} took nobody in`, "Try again; somebody else may join it.");
    });
    await consumer.commitOffsets(partitions.map((position) => ({ topic, ...position })));
  } finally {
    await consumer.disconnect();
  }
}
