/** The type `bytea`, as PostgreSQL numbers it. */
const byteaOid = 17;

/**
 * An array of `bytea` as PostgreSQL receives it in binary form, for a parameter
 * that is cast to `bytea[]`. As text, which an array becomes otherwise, every
 * byte is two characters, written here and read there.
 */
export function byteaArray(values: readonly (Uint8Array | null)[]): Buffer {
  let size = values.length === 0 ? 12 : 20;
  for (const value of values) size += 4 + (value?.byteLength ?? 0);
  const bytes = Buffer.allocUnsafe(size);
  let at = bytes.writeInt32BE(values.length === 0 ? 0 : 1, 0);
  at = bytes.writeInt32BE(values.includes(null) ? 1 : 0, at);
  at = bytes.writeInt32BE(byteaOid, at);
  if (values.length === 0) return bytes;
  at = bytes.writeInt32BE(values.length, at);
  // The number of its first element.
  at = bytes.writeInt32BE(1, at);
  for (const value of values) {
    at = bytes.writeInt32BE(value?.byteLength ?? -1, at);
    if (value === null) continue;
    bytes.set(value, at);
    at += value.byteLength;
  }
  return bytes;
}
