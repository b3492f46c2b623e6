import type { JsonObject } from "../json.ts";

declare const value: unique symbol;

/** Stands for a value of type `T` that a run will have. */
export interface ReferenceTo<out T> {
  /** Never there; carries the type. */
  readonly [value]: T;
}

/**
 * Stands for a value of type `T` that a run will have. Its members stand for
 * the value's members; of a value whose type is not known, anything may be
 * asked for.
 */
export type Reference<T> = ReferenceTo<T> & Members<T>;

/** Stands for a value of which nothing is known. */
interface UnknownReference extends ReferenceTo<unknown> {
  readonly [member: string]: UnknownReference;
}

type Members<T> = unknown extends T
  ? { readonly [member: string]: UnknownReference }
  : MembersOf<Exclude<T, null | undefined>>;

type MembersOf<T> = [T] extends [readonly (infer Element)[]]
  ? { readonly [index: number]: Reference<Element> }
  : [T] extends [object]
    ? { readonly [Name in keyof T]-?: Reference<T[Name]> }
    : unknown;

/** A value of type `T`, of which the whole and any part may be a reference instead. */
export type Template<T> =
  | ReferenceTo<T>
  | (T extends string | number | boolean | null | undefined
      ? T
      : T extends readonly (infer Element)[]
        ? readonly Template<Element>[]
        : T extends object
          ? { readonly [Name in keyof T]: Template<T[Name]> }
          : T);

/** The type of what a template gives. */
export type Resolved<T> = T extends { readonly [value]: infer V }
  ? V
  : T extends string | number | boolean | null | undefined
    ? T
    : T extends readonly unknown[]
      ? { -readonly [Index in keyof T]: Resolved<T[Index]> }
      : T extends object
        ? { -readonly [Name in keyof T]: Resolved<T[Name]> }
        : T;

/** What each reference names. A reference has no members of its own: all that are asked for are the value's. */
const sources = new WeakMap<object, string>();

/** Makes the reference of a name, for example `steps.fetch.output`. */
export function createReference<T>(source: string): Reference<T> {
  const reference = new Proxy(Object.freeze({}), {
    get(_, name) {
      if (name === Symbol.toPrimitive) {
        throw new TypeError(`${source} has no value yet: it cannot be part of a text or of a sum`);
      }
      if (typeof name === "symbol") return undefined;
      // Asked for by JSON.stringify, and by await.
      if (name === "toJSON") return () => ({ $ref: source });
      if (name === "then") return undefined;
      return createReference(source + toPath(name));
    },
    has() {
      throw new TypeError(`${source} has no members yet: ask in the condition of an edge, with has(…)`);
    },
    ownKeys() {
      throw new TypeError(`${source} has no members yet: it cannot be spread or walked over`);
    },
  });
  sources.set(reference, source);
  return reference as Reference<T>;
}

/** What a reference names; undefined if the value is none. */
export function sourceOf(candidate: object): string | undefined {
  return sources.get(candidate);
}

/** The JSON of a reference. */
export function referenceJson(source: string): JsonObject {
  return { $ref: source };
}

function toPath(name: string): string {
  if (/^(0|[1-9]\d{0,8})$/.test(name)) return `[${name}]`;
  return /^[A-Za-z_][\w-]*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
}
