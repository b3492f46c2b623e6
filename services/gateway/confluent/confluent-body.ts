import type { JsonObject, JsonValue, MessageInitShape } from "@bufbuild/protobuf";
import {
  Compatibility,
  type GetSchemaResponse,
  RegistryMode,
  SchemaFormat,
  type SchemaTextSchema,
  SchemaType,
  type SubjectVersion,
} from "@cadre/gen/cadre/registry/v1/registry_pb";
import { ConfluentError } from "./confluent-error.ts";

/** The names of enums' values are those of Confluent but for one underscore. */
const typeNames = ["AVRO", "JSON", "PROTOBUF"] as const;
const modeNames: ReadonlyMap<string, RegistryMode> = new Map([
  ["READWRITE", RegistryMode.READ_WRITE],
  ["READONLY", RegistryMode.READ_ONLY],
  ["READONLY_OVERRIDE", RegistryMode.READ_ONLY_OVERRIDE],
]);

/** The languages that are kept. */
export const schemaTypes: readonly string[] = typeNames;

/**
 * The schema in the body of a request. What is not said is Avro.
 *
 * @throws ConfluentError 42201, 42205; 422 for what is not supported
 */
export function toSchemaText(
  body: JsonValue | undefined,
  normalize: boolean,
): MessageInitShape<typeof SchemaTextSchema> {
  const fields = toObject(body);
  const { schema, schemaType, references } = fields;
  if (typeof schema !== "string" || schema === "") throw new ConfluentError(42201, "schema: is required");
  refuse(fields, ["metadata", "ruleSet", "schemaTags"]);
  // Who names an id or a version imports from another registry.
  if (isGiven(fields["id"]) || isGiven(fields["version"])) {
    throw new ConfluentError(42205, "id and version are given by the registry: it has no mode IMPORT");
  }
  const name = schemaType ?? "AVRO";
  const type = typeNames.find((one) => one === name);
  if (type === undefined) throw new ConfluentError(42201, `schemaType: must be ${typeNames.join(", ")}`);
  return { type: SchemaType[type], schema, references: toReferences(references), normalize };
}

function isGiven(value: JsonValue | undefined): boolean {
  return value !== undefined && value !== null && value !== 0 && value !== -1;
}

function toReferences(value: JsonValue | undefined) {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new ConfluentError(42201, "references: must be a list");
  return value.map((item) => {
    const { name, subject, version } = toObject(item);
    const isReference = typeof name === "string" && typeof subject === "string" && Number.isInteger(version);
    if (!isReference) throw new ConfluentError(42201, "references: each has a name, a subject and a version");
    return { name, subject, version: Number(version) };
  });
}

/** `{compatibility}`. Throws ConfluentError 42203. */
export function toCompatibility(body: JsonValue | undefined): Compatibility {
  const fields = toObject(body);
  refuse(
    fields,
    Object.keys(fields).filter((key) => key !== "compatibility"),
  );
  const { compatibility } = fields;
  const name = typeof compatibility === "string" ? compatibility.toUpperCase() : "";
  const level = name in Compatibility ? Compatibility[name as keyof typeof Compatibility] : undefined;
  if (level === undefined || level === Compatibility.UNSPECIFIED) {
    const levels = Object.keys(Compatibility).filter((key) => /^[A-Z_]+$/.test(key) && key !== "UNSPECIFIED");
    throw new ConfluentError(42203, `compatibility: must be one of ${levels.join(", ")}`);
  }
  return level;
}

/** `{mode}`. Throws ConfluentError 42204. */
export function toMode(body: JsonValue | undefined): RegistryMode {
  const { mode } = toObject(body);
  const found = typeof mode === "string" ? modeNames.get(mode.toUpperCase()) : undefined;
  if (found === undefined) {
    throw new ConfluentError(
      42204,
      `mode: must be one of ${[...modeNames.keys()].join(", ")}; others are not supported`,
    );
  }
  return found;
}

/** The name of a compatibility. */
export function compatibilityName(level: Compatibility | undefined): string {
  return Compatibility[level ?? Compatibility.UNSPECIFIED];
}

/** The name of a mode. */
export function modeName(mode: RegistryMode | undefined): string {
  return [...modeNames].find(([, value]) => value === mode)?.[0] ?? "";
}

/** A schema as a member of an answer: the language is left out for Avro, the references where there are none. */
export function fromSchema({ type, schema, references }: Pick<GetSchemaResponse, "type" | "schema" | "references">) {
  return {
    schema,
    ...(type === SchemaType.AVRO ? {} : { schemaType: SchemaType[type] }),
    ...(references.length === 0
      ? {}
      : { references: references.map(({ name, subject, version }) => ({ name, subject, version })) }),
  };
}

/** A version as an answer. */
export function fromVersion(version: SubjectVersion | undefined) {
  if (version === undefined) throw new TypeError("an answer of the registry without its version");
  return { subject: version.subject, version: version.version, id: version.schemaId, ...fromSchema(version) };
}

/** How a schema is to be written. Throws ConfluentError 422. */
export function toFormat(format: string): SchemaFormat {
  if (format === "") return SchemaFormat.UNSPECIFIED;
  if (format === "serialized") return SchemaFormat.SERIALIZED;
  throw new ConfluentError(422, "format: must be serialized, or left out");
}

function toObject(value: JsonValue | undefined): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfluentError(422, "the body must be an object");
  }
  return value;
}

/** What would be dropped in silence is refused. */
function refuse(fields: JsonObject, names: readonly string[]): void {
  const given = names.find((name) => fields[name] !== undefined && fields[name] !== null);
  if (given !== undefined) throw new ConfluentError(422, `${given.slice(0, 40)}: is not supported`);
}
