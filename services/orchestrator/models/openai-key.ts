import { readFileSync, statSync } from "node:fs";

/** Gives the key of a model's provider; undefined while there is none. */
export type KeySource = () => string | undefined;

/**
 * A key from a setting, or from a file that is read again when it changes, so
 * that a key is rotated without a restart. The key is held nowhere else.
 */
export function createKeySource(key: string | undefined, file: string | undefined): KeySource {
  if (file === undefined) return () => (key === undefined || key === "" ? undefined : key);
  let known: { readonly changedMs: number; readonly key: string | undefined } | undefined;
  return () => {
    try {
      const { mtimeMs } = statSync(file);
      if (known?.changedMs !== mtimeMs) {
        const text = readFileSync(file, "utf8").trim();
        known = { changedMs: mtimeMs, key: text === "" ? undefined : text };
      }
      return known?.key;
    } catch {
      // Absent for now, as while it is being replaced: no key, and the model says that it is not available.
      return undefined;
    }
  };
}
