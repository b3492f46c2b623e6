/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

/** A JSON object. */
export interface JsonObject {
  readonly [key: string]: Json;
}

/**
 * How deep JSON that is stored and streamed may nest: each level takes two of
 * the hundred that readers of Protobuf allow.
 */
export const maxJsonDepth = 32;

/** Whether a value nests deeper than `maxDepth` objects and arrays within each other. */
export function isDeeperThan(value: Json, maxDepth: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (maxDepth === 0) return true;
  return Object.values(value).some((child: Json) => isDeeperThan(child, maxDepth - 1));
}
