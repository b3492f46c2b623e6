import { createHash } from "node:crypto";

/** What the first entry of a run is chained to. */
export const emptyChain: Uint8Array = new Uint8Array(32);

/**
 * The hash of an entry: SHA-256 over the hash before, the run, the entry's
 * number, its kind and its bytes. A row that was changed, moved to another
 * place or run, or left out breaks the chain.
 *
 * @param runUuid the run's UUID as text
 */
export function chainHash(
  previous: Uint8Array,
  runUuid: string,
  seq: number,
  kind: number,
  body: Uint8Array,
): Uint8Array {
  const place = Buffer.alloc(22);
  place.write(runUuid.replaceAll("-", ""), 0, "hex");
  place.writeUInt32BE(seq, 16);
  place.writeUInt16BE(kind, 20);
  return createHash("sha256").update(previous).update(place).update(body).digest();
}
