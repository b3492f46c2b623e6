import type { JsonValue } from "@bufbuild/protobuf";
import type { RegistryService } from "@cadre/gen/cadre/registry/v1/registry_pb";
import type { CallOptions, Client } from "@connectrpc/connect";
import { ConfluentError } from "./confluent-error.ts";

/** A request to the registry, taken apart. */
export interface ConfluentCall {
  /** Calls the registry on behalf of the caller, with `options`. */
  readonly registry: Client<typeof RegistryService>;
  readonly options: CallOptions;
  /** The values of the route's `{…}`, decoded. */
  readonly path: readonly string[];
  readonly query: URLSearchParams;
  readonly body: JsonValue | undefined;
}

/** What is answered with 200: JSON, or a schema as it is. */
export type ConfluentAnswer = { readonly json: unknown } | { readonly text: string };

/** The most that a list of the registry has; what is asked for when nothing is said. */
const maxLimit = 10_000;

/** Whether `?name=true`. */
export function flag({ query }: ConfluentCall, name: string): boolean {
  return query.get(name)?.toLowerCase() === "true";
}

/** `?offset=` and `?limit=`, whose absence and whose -1 mean all. Throws ConfluentError 422. */
export function pageOf({ query }: ConfluentCall): { readonly offset: number; readonly limit: number } {
  const offset = integer(query.get("offset") ?? "0", "offset");
  const limit = integer(query.get("limit") ?? "-1", "limit");
  return { offset: Math.max(0, offset), limit: limit <= 0 ? maxLimit : Math.min(limit, maxLimit) };
}

function integer(text: string, name: string): number {
  if (!/^-?\d{1,9}$/.test(text)) throw new ConfluentError(422, `${name}: must be an integer`);
  return Number(text);
}

/** The subject of a path; empty where the route has none. */
export function subjectOf({ path }: ConfluentCall): string {
  return path[0] ?? "";
}

/** The version that stands at a place of the path: a number, or `latest`. Throws ConfluentError 42202. */
export function versionOf({ path }: ConfluentCall, index = 1): number {
  const text = path[index] ?? "";
  if (text === "latest" || text === "-1") return -1;
  if (/^[1-9]\d{0,9}$/.test(text) && Number(text) <= 0x7fff_ffff) return Number(text);
  throw new ConfluentError(42202, "version: must be 1 to 2147483647, or latest");
}

/** The id in a path. Throws ConfluentError 40403 for what is none. */
export function schemaIdOf({ path }: ConfluentCall): number {
  const text = path[0] ?? "";
  if (/^[1-9]\d{0,9}$/.test(text) && Number(text) <= 0x7fff_ffff) return Number(text);
  throw new ConfluentError(40403, "there is no schema of that id");
}
