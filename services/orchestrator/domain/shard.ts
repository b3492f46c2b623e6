/** How many shards there are; a session's shard never changes. */
export const shardCount = 64;

/** The shard of a session by its UUID as text: the low six bits, which are random. */
export function shardOf(sessionUuid: string): number {
  return Number.parseInt(sessionUuid.slice(-2), 16) % shardCount;
}
