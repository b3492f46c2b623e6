import type { Json } from "../json.ts";
import { memberPath, type Problems } from "./problems.ts";
import { type JsonKind, jsonKind, type SchemaReader, type SchemaType } from "./schema-type.ts";
import type { PlacedReference, Template } from "./template.ts";

/** Whether what templates give can be what is wanted where it goes. */
export class Fit {
  readonly #reader: SchemaReader;
  readonly #problems: Problems;

  constructor(reader: SchemaReader, problems: Problems) {
    this.#reader = reader;
    this.#problems = problems;
  }

  /**
   * Notes where a template cannot give what is wanted.
   *
   * @param typeOf the types of references
   */
  check(template: Template, wanted: SchemaType, path: string, typeOf: (placed: PlacedReference) => SchemaType): void {
    if (this.#problems.has(path)) return;
    switch (template.kind) {
      case "constant":
        return this.#constant(template.value, wanted, path);
      case "reference":
        return this.#reference(typeOf(template), wanted, path, template.reference.source);
      case "array":
        if (!this.#kind("array", wanted, path)) return;
        for (const [index, item] of template.items.entries()) {
          const inner = this.#reader.member(wanted, index);
          if (inner === undefined) this.#problems.add(`${path}[${index}]`, "is one element too many", "type");
          else this.check(item, inner, `${path}[${index}]`, typeOf);
        }
        return;
      case "object":
        if (!this.#members(new Set(template.members.map(([name]) => name)), wanted, path)) return;
        for (const [name, value] of template.members) {
          const inner = this.#reader.member(wanted, name);
          if (inner !== undefined) this.check(value, inner, memberPath(path, name), typeOf);
        }
    }
  }

  #constant(value: Json, wanted: SchemaType, path: string): void {
    if (wanted.kind === "any") return;
    if (!this.#kind(jsonKind(value), wanted, path)) return;
    const listed = this.#reader.listed(wanted);
    if (listed !== undefined && typeof value !== "object" && !listed.includes(value)) {
      this.#problems.add(
        path,
        `must be one of ${listed
          .map((item) => JSON.stringify(item))
          .join(", ")
          .slice(0, 200)}`,
        "type",
      );
      return;
    }
    if (typeof value !== "object" || value === null) return;
    if (Array.isArray(value)) {
      for (const [index, item] of (value as readonly Json[]).entries()) {
        const inner = this.#reader.member(wanted, index);
        if (inner === undefined) this.#problems.add(`${path}[${index}]`, "is one element too many", "type");
        else this.#constant(item, inner, `${path}[${index}]`);
      }
      return;
    }
    if (!this.#members(new Set(Object.keys(value)), wanted, path)) return;
    for (const [name, item] of Object.entries(value) as [string, Json][]) {
      const inner = this.#reader.member(wanted, name);
      if (inner !== undefined) this.#constant(item, inner, memberPath(path, name));
    }
  }

  /** Looks at the names of an object's members. Returns whether it can be an object at all. */
  #members(names: ReadonlySet<string>, wanted: SchemaType, path: string): boolean {
    if (!this.#kind("object", wanted, path)) return false;
    // What may also be something else than an object is an object here, so its demands hold.
    for (const name of this.#reader.required(wanted)) {
      if (!names.has(name)) this.#problems.add(memberPath(path, name), "is required", "required");
    }
    for (const name of names) {
      if (this.#reader.member(wanted, name) === undefined) {
        this.#problems.add(memberPath(path, name), "is not known there", "unknown_member");
      }
    }
    return true;
  }

  #reference(given: SchemaType, wanted: SchemaType, path: string, source: string): void {
    const givenKinds = this.#reader.kindsOf(given);
    // Nothing at all can be given: said where that comes from.
    if (givenKinds.size === 0) return;
    const wantedKinds = this.#reader.kindsOf(wanted);
    if (wantedKinds.size > 0 && givenKinds.isDisjointFrom(wantedKinds)) {
      this.#problems.add(path, `${source} gives ${inWords(givenKinds)}, and ${inWords(wantedKinds)} is wanted`, "type");
      return;
    }
    const givenValues = this.#reader.listed(given);
    const wantedValues = this.#reader.listed(wanted);
    if (givenValues === undefined || wantedValues === undefined) return;
    if ([...givenValues, ...wantedValues].some((value) => typeof value === "object")) return;
    if (!givenValues.some((value) => wantedValues.includes(value))) {
      this.#problems.add(path, `${source} gives none of the values that are wanted`, "type");
    }
  }

  #kind(kind: JsonKind, wanted: SchemaType, path: string): boolean {
    if (this.#reader.canBe(wanted, kind)) return true;
    const kinds = this.#reader.kindsOf(wanted);
    const message = kinds.size === 0 ? "can have no value" : `is ${words[kind]}, and must be ${inWords(kinds)}`;
    this.#problems.add(path, message, "type");
    return false;
  }
}

const words: Readonly<Record<JsonKind, string>> = {
  null: "null",
  boolean: "true or false",
  integer: "an integer",
  fraction: "a number with a fraction",
  string: "a text",
  array: "a list",
  object: "an object",
};

/** The kinds in words, for example `a text or null`. */
export function inWords(kinds: ReadonlySet<JsonKind>): string {
  const names = [...kinds]
    .filter((kind) => kind !== "null")
    .map((kind) => (kind === "fraction" ? "a number" : words[kind]));
  const distinct = names.filter((name) => name !== words.integer || !kinds.has("fraction"));
  return [...distinct, ...(kinds.has("null") ? ["null"] : [])].join(" or ");
}
