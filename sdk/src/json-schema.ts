import type { JsonObject } from "@bufbuild/protobuf";
import { toJsonValue } from "./json.ts";
import { isStandardSchema, type StandardSchema } from "./standard-schema.ts";

/**
 * The JSON Schema (2020-12) of a validator, or the JSON Schema that was given.
 * Asks the validator by Standard JSON Schema, else by the method that zod and
 * arktype have.
 *
 * @param side whether it describes what the validator takes or what it gives
 * @throws TypeError if the validator gives none: state the JSON Schema yourself
 */
export function jsonSchemaOf(schema: JsonObject | StandardSchema, side: "input" | "output"): JsonObject {
  const made = isStandardSchema(schema) ? convert(schema, side) : schema;
  const copy = toJsonValue(made);
  if (copy === null || typeof copy !== "object" || Array.isArray(copy)) {
    throw new TypeError("a JSON Schema is an object");
  }
  return copy;
}

interface OwnMethods {
  readonly toJSONSchema?: (options: { readonly io: "input" | "output" }) => unknown;
  readonly toJsonSchema?: () => unknown;
}

function convert(schema: StandardSchema, side: "input" | "output"): unknown {
  const { jsonSchema, vendor } = schema["~standard"];
  if (jsonSchema !== undefined) return jsonSchema[side]({ target: "draft-2020-12" });
  const own = schema as OwnMethods;
  if (typeof own.toJSONSchema === "function") return own.toJSONSchema({ io: side });
  if (typeof own.toJsonSchema === "function") return own.toJsonSchema();
  throw new TypeError(
    `validators of ${vendor} give no JSON Schema: say it in inputSchema, outputSchema or answerSchema`,
  );
}
