import type { DescField, DescMessage, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { isMap, isScalar, isSeq, type Node, type YAMLMap } from "yaml";
import { nearestName } from "../../services/runtime/config/nearest-name.ts";
import type { YamlNode, YamlSource } from "./yaml-source.ts";

const durations = /^(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)$/;
const unitSeconds: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3_600, d: 86_400 };

/**
 * Turns YAML into the Protobuf JSON of a message, by its descriptor, and
 * refuses at its place what is no field or of another type.
 */
export class MessageReader {
  readonly #source: YamlSource;

  constructor(source: YamlSource) {
    this.#source = source;
  }

  /**
   * @param where what the message is, for errors; empty for the whole file
   * @throws CliError 2
   */
  message(desc: DescMessage, node: YamlNode, where: string, depth = 0): JsonObject {
    switch (desc.typeName) {
      case "google.protobuf.Duration":
      case "google.protobuf.Value":
        throw new TypeError(`${desc.typeName} is no object`);
      case "google.protobuf.Struct": {
        if (!isMap(node)) throw this.#wrongType(node, where, "an object");
        return this.#members(node, depth, (value) => this.#json(value, depth + 1));
      }
    }
    if (!isMap(node)) throw this.#wrongType(node, where, "an object");
    const fields = new Map(desc.fields.map((field) => [field.name, field]));
    const chosen = new Map<string, string>();
    const json = this.#members(node, depth, (value, key, keyNode) => {
      const field = fields.get(key);
      if (field === undefined) throw this.#unknown(keyNode, key, where, fields.keys());
      const group = field.oneof?.name;
      const other = group === undefined ? undefined : chosen.get(group);
      if (other !== undefined)
        throw this.#source.error(keyNode, `${inside(where)}${other} and ${key} exclude each other`);
      if (group !== undefined) chosen.set(group, key);
      return this.#field(field, value, where === "" ? key : `${where}.${key}`, depth + 1);
    });
    for (const { name, fields: options } of desc.oneofs) {
      if (chosen.has(name)) continue;
      const names = options.map((option) => option.name).join(", ");
      throw this.#source.error(node, `${inside(where)}one of ${names} is missing`);
    }
    return json;
  }

  #members(
    node: YAMLMap,
    depth: number,
    read: (value: YamlNode, key: string, keyNode: Node | undefined) => JsonValue,
  ): JsonObject {
    return Object.fromEntries(
      node.items.map(({ key: keyNode, value }) => {
        const key = isScalar(keyNode) ? keyNode.value : undefined;
        if (typeof key !== "string") {
          throw this.#source.error(keyNode as Node, "a key must be a text", "Put it into quotes.");
        }
        return [key, read(this.#source.resolve(value, depth + 1), key, keyNode as Node)];
      }),
    );
  }

  #field(field: DescField, node: YamlNode, where: string, depth: number): JsonValue {
    switch (field.fieldKind) {
      case "message":
        return this.#value(field.message, node, where, depth);
      case "scalar":
        return this.#scalar(field.scalar, node, where);
      case "list": {
        if (!isSeq(node)) throw this.#wrongType(node, where, "a list");
        return node.items.map((item, index) => {
          const value = this.#source.resolve(item, depth + 1);
          const place = `${where}[${index}]`;
          if (field.listKind === "message") return this.#value(field.message, value, place, depth + 1);
          if (field.listKind === "scalar") return this.#scalar(field.scalar, value, place);
          throw new TypeError(`${field.name}: lists of enums are not read`);
        });
      }
      default:
        throw new TypeError(`${field.name}: fields of its kind are not read`);
    }
  }

  #value(desc: DescMessage, node: YamlNode, where: string, depth: number): JsonValue {
    if (desc.typeName === "google.protobuf.Value") return this.#json(node, depth);
    if (desc.typeName === "google.protobuf.Duration") return this.#duration(node, where);
    return this.message(desc, node, where, depth);
  }

  #scalar(type: ScalarType, node: YamlNode, where: string): JsonValue {
    const value = isScalar(node) ? node.value : undefined;
    switch (type) {
      case ScalarType.STRING:
        if (typeof value === "string") return value;
        throw this.#wrongType(node, where, "a text", isScalar(node) ? "Put it into quotes." : "");
      case ScalarType.BOOL:
        if (typeof value === "boolean") return value;
        throw this.#wrongType(node, where, "true or false");
      case ScalarType.UINT32:
        if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 2 ** 32) return value;
        throw this.#wrongType(node, where, "a whole number from 0");
      default:
        throw new TypeError(`${where}: values of its kind are not read`);
    }
  }

  #duration(node: YamlNode, where: string): string {
    const text = isScalar(node) ? node.value : undefined;
    const [, amount, unit = ""] = typeof text === "string" ? (durations.exec(text) ?? []) : [];
    const factor = unitSeconds[unit];
    if (amount === undefined || factor === undefined) {
      throw this.#wrongType(node, where, "a duration", "For example: 500ms, 30s, 10m, 12h or 90d.");
    }
    return `${(Number(amount) * factor).toFixed(9).replace(/\.?0+$/, "")}s`;
  }

  #json(node: YamlNode, depth: number): JsonValue {
    if (isMap(node)) return this.#members(node, depth, (value) => this.#json(value, depth + 1));
    if (isSeq(node)) return node.items.map((item) => this.#json(this.#source.resolve(item, depth + 1), depth + 1));
    const { value } = node;
    if (value === null || typeof value === "string" || typeof value === "boolean") return value;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.#source.error(node, "is no value of JSON", "Put it into quotes.");
  }

  #unknown(node: Node | undefined, key: string, where: string, known: Iterable<string>): Error {
    const names = [...known];
    const nearest = nearestName(key, names);
    return this.#source.error(
      node,
      `${inside(where)}there is no field ${key}${nearest === undefined ? "" : `; did you mean ${nearest}?`}`,
      `Known are ${names.join(", ")}.`,
    );
  }

  #wrongType(node: YamlNode, where: string, wanted: string, remedy = ""): Error {
    return this.#source.error(node, `${where === "" ? "the graph" : where} must be ${wanted}`, remedy);
  }
}

function inside(where: string): string {
  return where === "" ? "" : `${where}: `;
}
