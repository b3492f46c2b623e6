/**
 * What a JSON Schema and a check against it may cost, so that neither a
 * tenant's schema nor a model's arguments can stall the process.
 */
export const jsonSchemaLimits = {
  /** Of the schema as compact JSON, in UTF-8 bytes. */
  maxBytes: 65_536,
  /** Objects and arrays within each other, in the schema. */
  maxDepth: 32,
  /** Subschemas; each may run once for each value it applies to. */
  maxSubschemas: 2_000,
  /** Of a `pattern` or a `patternProperties` key, in UTF-16 code units. */
  maxPatternLength: 256,
  /** References followed in one check; schemas that refer to each other can ask for exponentially many. */
  maxReferences: 50_000,
  /** Steps of all patterns in one check. */
  maxPatternSteps: 5_000_000,
  /** Of a text that a `format` is checked on, in UTF-16 code units; a longer one does not match. */
  maxFormatLength: 2_048,
  /** Violations reported for one value. */
  maxViolations: 20,
  /** Objects and arrays within each other, in a checked value. */
  maxValueDepth: 64,
} as const;
