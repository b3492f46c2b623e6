import type { JsonValue } from "@bufbuild/protobuf";

/**
 * Writes JSON in its one canonical form, RFC 8785: no blanks, keys in the order
 * of their UTF-16 code units, numbers and texts as ECMAScript writes them. Equal
 * values give equal texts. Throws TypeError on a number that is not finite. A lone
 * surrogate, which no Protobuf message can carry, is written as its escape.
 */
export function canonicalJson(value: JsonValue): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "number":
      if (!Number.isFinite(value)) throw new TypeError("a number that is not finite has no canonical form");
      return JSON.stringify(value);
    case "boolean":
      return value ? "true" : "false";
    case "object": {
      if (value === null) return "null";
      if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
      // The default order of sort() is that of UTF-16 code units.
      const members = Object.keys(value)
        .sort()
        .map((key) => `${canonicalJson(key)}:${canonicalJson(value[key] ?? null)}`);
      return `{${members.join(",")}}`;
    }
  }
}
