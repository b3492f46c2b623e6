/** Which versions of a subject a new one must agree with, and in which direction. */
export type Compatibility =
  | "NONE"
  | "BACKWARD"
  | "BACKWARD_TRANSITIVE"
  | "FORWARD"
  | "FORWARD_TRANSITIVE"
  | "FULL"
  | "FULL_TRANSITIVE";

/** What holds where nobody set anything. */
export const defaultCompatibility: Compatibility = "BACKWARD";

/** Who must be able to read what. */
export interface Directions {
  /** The new version reads what the old one wrote. */
  readonly backward: boolean;
  /** The old version reads what the new one writes. */
  readonly forward: boolean;
}

/** The directions of a level; neither of NONE. */
export function directionsOf(level: Compatibility): Directions {
  return {
    backward: level.startsWith("BACKWARD") || level.startsWith("FULL"),
    forward: level.startsWith("FORWARD") || level.startsWith("FULL"),
  };
}

/** Of a subject's versions, ascending, those that a level compares with, the latest first. */
export function versionsToCompare<T>(level: Compatibility, versions: readonly T[]): readonly T[] {
  if (level === "NONE") return [];
  return level.endsWith("_TRANSITIVE") ? [...versions].reverse() : versions.slice(-1);
}
