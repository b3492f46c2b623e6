import { createHash } from "node:crypto";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import type { AddedFormat, AnySchema, Format } from "ajv/dist/types/index.js";
import { fullFormats } from "ajv-formats/dist/formats.js";
import { BoundedMap } from "../cache/bounded-map.ts";
import { AppError, type FieldViolation } from "../errors/app-error.ts";
import { canonicalJson } from "./canonical-json.ts";
import { type CheckedSchema, checkSchema, depthExceeds, escapePointer, referenceMark } from "./check-schema.ts";
import { isEqualJson } from "./json-equal.ts";
import { jsonSchemaLimits } from "./limits.ts";
import { PatternBudgetError } from "./linear-pattern.ts";

/** A compiled JSON Schema. */
export interface CompiledJsonSchema {
  /**
   * Checks a value. Empty if it matches, else at most 20 violations whose
   * `field` is a JSON Pointer (RFC 6901) into the value, empty for the value
   * itself. Messages quote the schema, never the value. Bounded in time: a value
   * that is too costly to check does not match.
   */
  validate(value: unknown): readonly FieldViolation[];
}

export interface CompileJsonSchemaOptions {
  /** The schema's path in the request, for example `definition.input_schema`; put before each pointer. */
  readonly field?: string;
}

const maxCached = 1_000;
/** Compiled schemas by digest, the one used last at the end. */
const cache = new BoundedMap<string, CompiledJsonSchema>(maxCached);

/**
 * Compiles a JSON Schema (2020-12, formats checked, unknown keywords ignored).
 * An equal schema is compiled once a process, as long as it is among the 1,000
 * used last.
 *
 * @throws AppError INVALID_SCHEMA if it is not valid, refers out of itself, has
 * a pattern that needs backtracking, or exceeds `jsonSchemaLimits`; the
 * violations say where
 */
export function compileJsonSchema(schema: JsonObject, options: CompileJsonSchemaOptions = {}): CompiledJsonSchema {
  const field = options.field ?? "";
  // The limits come first: hashing what has no bound would be a cost of its own.
  const checked = checkSchema(schema, field);
  if (checked.violations.length > 0) throw invalidSchema(checked.violations);
  const digest = createHash("sha256").update(canonicalJson(schema)).digest("hex");
  const known = cache.get(digest);
  if (known !== undefined) return known;
  const compiled = compile(schema, checked, field);
  cache.set(digest, compiled);
  return compiled;
}

/**
 * What is wrong with a JSON Schema, without compiling it: a fraction of the
 * cost, and all that `compileJsonSchema` looks at but for rare faults that only
 * show in use. Empty if it is valid.
 *
 * @param field the schema's path in the request
 */
export function findSchemaFaults(schema: JsonObject, field: string): readonly FieldViolation[] {
  const { violations } = checkSchema(schema, field);
  return violations.length > 0 ? violations : findMetaSchemaFaults(schema, field);
}

function findMetaSchemaFaults(schema: JsonObject, field: string): readonly FieldViolation[] {
  if (metaSchema === undefined) throw new TypeError("ajv has lost its meta-schema");
  return metaSchema(schema) === true ? [] : toViolations(metaSchema.errors ?? [], field, "json_schema");
}

const metaSchema = new Ajv2020({ strict: false, logger: false }).getSchema(
  "https://json-schema.org/draft/2020-12/schema",
);

function compile(schema: JsonObject, checked: CheckedSchema, field: string): CompiledJsonSchema {
  const faults = findMetaSchemaFaults(schema, field);
  if (faults.length > 0) throw invalidSchema(faults);
  const check = new SchemaCheck(checked);
  let first: ValidateFunction;
  try {
    first = check.compile({ allErrors: false });
  } catch (error) {
    // Ajv says here what the meta-schema cannot: a reference to nowhere, for example.
    const message = error instanceof Error ? error.message.slice(0, 200) : "cannot be compiled";
    throw invalidSchema([{ field, message, rule: "json_schema" }]);
  }
  let all: ValidateFunction | undefined;
  return {
    validate(value) {
      if (depthExceeds(value, jsonSchemaLimits.maxValueDepth)) {
        return [{ field: "", message: `is nested more than ${jsonSchemaLimits.maxValueDepth} deep`, rule: "depth" }];
      }
      const violations = check.run(first, value);
      if (violations.length === 0) return violations;
      // The first error is found cheaply, so good values stay fast and hostile
      // ones cost little; only a small value is asked for all of its errors.
      if (violations.some(({ rule }) => rule === "cost") || !isSmall(value)) return violations;
      all ??= check.compile({ allErrors: true });
      const more = check.run(all, value);
      return more.some(({ rule }) => rule === "cost") ? violations : more;
    },
  };
}

/** One schema with the budget of the check that is running; checks are synchronous, so one budget does. */
class SchemaCheck {
  readonly #checked: CheckedSchema;
  /**
   * Whether the schema asks which members no other keyword has looked at. The
   * code that Ajv writes to know that has faults: with `{"oneOf":
   * [{"prefixItems": [true]}], "$ref": "#/$defs/a"}` it ends in a
   * ReferenceError.
   */
  readonly #tracksEvaluated: boolean;
  #references = 0;
  #patterns = { steps: 0 };

  constructor(checked: CheckedSchema) {
    this.#checked = checked;
    this.#tracksEvaluated = JSON.stringify(checked.marked).includes('"unevaluated');
  }

  /**
   * An Ajv for this schema alone: ids of one tenant's schema must never resolve
   * in another's, and what is dropped from the cache must leave no trace.
   */
  compile(options: { readonly allErrors: boolean }): ValidateFunction {
    const ajv = new Ajv2020({
      ...options,
      strict: false,
      logger: false,
      meta: false,
      validateSchema: false,
      // Inlined references would let a small schema grow exponentially.
      inlineRefs: false,
      ownProperties: true,
      code: { regExp: Object.assign((source: string) => this.#pattern(source), { code: "linear" }) },
    });
    ajv.opts.unevaluated = this.#tracksEvaluated;
    // Ajv compares objects by way of their own valueOf and toString, which a value may hold as data.
    for (const keyword of ["const", "enum", "uniqueItems"]) ajv.removeKeyword(keyword);
    ajv.addKeyword({
      keyword: "const",
      error: { message: "must be equal to constant" },
      validate: (wanted: JsonValue, value: JsonValue) => isEqualJson(wanted, value),
    });
    ajv.addKeyword({
      keyword: "enum",
      schemaType: "array",
      error: { message: "must be equal to one of the allowed values" },
      validate: (listed: readonly JsonValue[], value: JsonValue) => listed.some((item) => isEqualJson(item, value)),
    });
    ajv.addKeyword({
      keyword: "uniqueItems",
      type: "array",
      schemaType: "boolean",
      error: { message: "must not have equal items" },
      validate: (wanted: boolean, items: readonly JsonValue[]) => !wanted || areUnique(items),
    });
    ajv.addKeyword({ keyword: referenceMark, before: "$dynamicRef", errors: false, validate: () => this.#count() });
    for (const [name, format] of Object.entries(fullFormats)) ajv.addFormat(name, bounded(format));
    return ajv.compile(this.#checked.marked as AnySchema);
  }

  run(validate: ValidateFunction, value: unknown): readonly FieldViolation[] {
    this.#references = jsonSchemaLimits.maxReferences;
    this.#patterns.steps = jsonSchemaLimits.maxPatternSteps;
    try {
      if (validate(value) === true) return [];
    } catch (error) {
      if (this.#tracksEvaluated && (error instanceof ReferenceError || error instanceof TypeError)) {
        return [{ field: "", message: "cannot be checked against the schema", rule: "json_schema" }];
      }
      const isOverflow = error instanceof RangeError && error.message.startsWith("Maximum call stack");
      if (!isOverflow && !(error instanceof PatternBudgetError) && !(error instanceof ReferenceBudgetError))
        throw error;
      return [{ field: "", message: "is too costly to check against the schema", rule: "cost" }];
    }
    return toViolations(validate.errors ?? [], "", undefined);
  }

  #count(): true {
    this.#references -= 1;
    if (this.#references < 0) throw new ReferenceBudgetError("too many references were followed");
    return true;
  }

  #pattern(source: string): { test(text: string): boolean; toString(): string } {
    const pattern = this.#checked.patterns.get(source);
    if (pattern === undefined) throw new TypeError("ajv asked for a pattern that the schema does not have");
    // Ajv tells patterns apart by their text form.
    return { test: (text: string) => pattern.test(text, this.#patterns), toString: () => `/${source}/u` };
  }
}

class ReferenceBudgetError extends Error {
  override readonly name = "ReferenceBudgetError";
}

function areUnique(items: readonly JsonValue[]): boolean {
  return new Set(items.map((item) => canonicalJson(item))).size === items.length;
}

/** A format that does not look at texts so long that its own pattern could be slow. */
function bounded(format: Format): AddedFormat {
  if (typeof format === "boolean" || typeof format === "string") return true;
  if (format instanceof RegExp) return (text: string) => isShort(text) && format.test(text);
  if (typeof format === "function") return (text: string) => isShort(text) && format(text);
  const { validate } = format;
  if (validate instanceof RegExp) return (text: string) => isShort(text) && validate.test(text);
  if (format.type === "number" || typeof validate !== "function") return format as AddedFormat;
  return (text: string) => isShort(text) && validate(text as never) === true;
}

function isShort(text: string): boolean {
  return text.length <= jsonSchemaLimits.maxFormatLength;
}

/** Whether all errors of a value can be collected without a second thought. Looks at 1,000 parts at most. */
function isSmall(value: unknown): boolean {
  let left = 1_000;
  const visit = (part: unknown): boolean => {
    left -= 1;
    if (left < 0) return false;
    if (typeof part !== "object" || part === null) return true;
    return Object.values(part).every(visit);
  };
  return visit(value);
}

function toViolations(
  errors: readonly ErrorObject[],
  field: string,
  rule: string | undefined,
): readonly FieldViolation[] {
  return errors.slice(0, jsonSchemaLimits.maxViolations).map((error) => ({
    field: field + error.instancePath + extraProperty(error),
    message: error.message ?? "does not match the schema",
    rule: rule ?? error.keyword,
  }));
}

/** The part of the pointer that names a property which should not be there. */
function extraProperty({ params }: ErrorObject): string {
  const name: unknown = params["additionalProperty"] ?? params["unevaluatedProperty"];
  return typeof name === "string" ? `/${escapePointer(name.slice(0, 128))}` : "";
}

function invalidSchema(violations: readonly FieldViolation[]): AppError {
  return new AppError("INVALID_SCHEMA", "the JSON Schema is not valid", { violations });
}
