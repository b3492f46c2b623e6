import { hash } from "node:crypto";

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
  // One piece and one call: most entries are small, and each one passes here.
  const bytes = Buffer.allocUnsafe(54 + body.length);
  bytes.set(previous, 0);
  bytes.write(runUuid.replaceAll("-", ""), 32, "hex");
  bytes.writeUInt32BE(seq, 48);
  bytes.writeUInt16BE(kind, 52);
  bytes.set(body, 54);
  return hash("sha256", bytes, "buffer");
}
