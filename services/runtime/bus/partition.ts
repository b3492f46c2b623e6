/**
 * The partition of a key: the one that Kafka's own clients choose, so that both
 * drivers agree (`org.apache.kafka.common.utils.Utils.murmur2`, its sign bit
 * cleared, modulo the number of partitions).
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(new TextEncoder().encode(key)) & 0x7fffffff) % partitions;
}

/** MurmurHash 2, 32 bits, with Kafka's seed. */
export function murmur2(bytes: Uint8Array): number {
  const multiplier = 0x5bd1e995;
  const shift = 24;
  let hash = 0x9747b28c ^ bytes.length;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const whole = bytes.length & ~3;
  for (let index = 0; index < whole; index += 4) {
    let word = Math.imul(view.getInt32(index, true), multiplier);
    word = Math.imul(word ^ (word >>> shift), multiplier);
    hash = Math.imul(hash, multiplier) ^ word;
  }
  const rest = bytes.length - whole;
  if (rest > 0) {
    for (let index = rest - 1; index >= 0; index--) hash ^= (bytes[whole + index] ?? 0) << (8 * index);
    hash = Math.imul(hash, multiplier);
  }
  hash = Math.imul(hash ^ (hash >>> 13), multiplier);
  return hash ^ (hash >>> 15);
}
