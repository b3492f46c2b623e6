import { createHash } from "node:crypto";
import { canonicalJson } from "../../runtime/json-schema/canonical-json.ts";
import { compileProtobuf, type Imports } from "./protobuf/compile-protobuf.ts";
import type { ReadSchema, SchemaInput } from "./schema.ts";
import { invalidSchema } from "./schema-fault.ts";

/**
 * Reads a schema: Protobuf is compiled, of Avro and JSON Schema it is seen that
 * they are JSON.
 *
 * @param imports the files that its references stand for, by the path of the import
 * @throws AppError INVALID_SCHEMA
 */
export function readSchema(input: SchemaInput, imports: Imports): ReadSchema {
  const { type, references } = input;
  if (type === "PROTOBUF") {
    const { text, descriptor, content } = compileProtobuf(input.schema, imports, input.normalize, input.name);
    return { type, text, descriptor, references, ...digestsOf(input, content) };
  }
  const value = parseJson(input);
  const text = input.normalize ? canonicalJson(value) : input.schema;
  return { type, text, descriptor: undefined, references, ...digestsOf(input, Buffer.from(text)) };
}

type Json = Parameters<typeof canonicalJson>[0];

function parseJson({ type, schema }: SchemaInput): Json {
  let value: unknown;
  try {
    value = JSON.parse(schema);
  } catch (thrown) {
    throw invalidSchema(`a schema of type ${type} is JSON: ${thrown instanceof Error ? thrown.message : "it is not"}`);
  }
  const isObject = typeof value === "object" && value !== null;
  const isSchema = type === "AVRO" ? isObject || typeof value === "string" : isObject || typeof value === "boolean";
  if (!isSchema) throw invalidSchema(`a schema of type ${type} is no ${JSON.stringify(value).slice(0, 40)}`);
  assertDepth(value, 0);
  return value as Json;
}

const maxDepth = 200;

function assertDepth(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null) return;
  if (depth === maxDepth) throw invalidSchema(`it is nested more than ${maxDepth} deep`);
  for (const inner of Object.values(value)) assertDepth(inner, depth + 1);
}

function digestsOf(
  { type, references }: SchemaInput,
  content: Uint8Array,
): Pick<ReadSchema, "digest" | "contentDigest"> {
  const head = [type, ...references.map(({ name, subject, version }) => [name, subject, version])];
  return {
    digest: createHash("sha256").update(JSON.stringify(head)).update("\n").update(content).digest(),
    contentDigest: createHash("sha256").update(content).digest(),
  };
}
