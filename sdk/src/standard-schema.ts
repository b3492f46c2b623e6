// The interfaces of https://standardschema.dev, version 1, and of Standard JSON
// Schema. The specification asks libraries to copy them instead of depending on
// a package.

/** A validator of any library that follows Standard Schema, for example of zod, valibot or arktype. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
    /** Standard JSON Schema; a validator without it may have a method of its own. */
    readonly jsonSchema?: StandardJsonSchema | undefined;
  };
}

/** How a validator gives JSON Schema. */
export interface StandardJsonSchema {
  readonly input: (options: { readonly target: "draft-2020-12" }) => Record<string, unknown>;
  readonly output: (options: { readonly target: "draft-2020-12" }) => Record<string, unknown>;
}

/** What a validation found: the value, or what is wrong. */
export type StandardResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly StandardIssue[] };

/** Something wrong with a value. */
export interface StandardIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** The type that a validator takes. */
export type InferInput<S extends StandardSchema> = NonNullable<S["~standard"]["types"]>["input"];

/** The type that a validator gives. */
export type InferOutput<S extends StandardSchema> = NonNullable<S["~standard"]["types"]>["output"];

/** Whether a value is a validator and not, for example, a JSON Schema. */
export function isStandardSchema(value: object): value is StandardSchema {
  return "~standard" in value;
}

/** Says in one line what is wrong with a value. */
export function describeIssues(issues: readonly StandardIssue[]): string {
  return issues
    .map(({ path = [], message }) => {
      const place = path.map((part) => String(typeof part === "object" ? part.key : part)).join(".");
      return place === "" ? message : `${place}: ${message}`;
    })
    .join("; ");
}
