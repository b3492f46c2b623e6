/** Who may use a key: a step of a run, or a caller of a tool. Their keys never meet. */
export type KeyKind = "step" | "direct";

/** A caller's idempotency key as it is stored, unique in the org. */
export function storedKey(kind: KeyKind, key: string): string {
  return `${kind}:${key}`;
}

/** The caller's key within a stored one. */
export function keyOf(stored: string): string {
  return stored.slice(stored.indexOf(":") + 1);
}
