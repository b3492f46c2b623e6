import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  getOption,
  hasOption,
  ScalarType,
} from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { Sensitivity, sensitivity } from "@cadre/gen/cadre/options/v1/options_pb";
import type { Comments } from "./comments.ts";
import type { JsonSchema } from "./json-schema.ts";
import { type RuleSchema, toRuleSchema } from "./rule-schema.ts";

/** Writes the schemas of messages in Protobuf JSON, and collects those that others refer to. */
export interface SchemaWriter {
  /** A reference to a message; its schema and those that it needs are added to the components. */
  reference(message: DescMessage): JsonSchema;
  /** One field of a message. */
  field(field: DescField): JsonSchema;
  /** A message's own schema without the fields that come by another way; nothing else is taken. */
  body(message: DescMessage, without: ReadonlySet<string>): JsonSchema;
  /** Whether a message without the field breaks a rule. */
  isRequired(field: DescField): boolean;
  /** What was referred to, by its name. */
  components(): Record<string, JsonSchema>;
}

/**
 * Creates a writer. Schemas are named by the message's own name, or by its
 * full name if another has that one.
 */
export function createSchemaWriter(comments: Comments): SchemaWriter {
  const names = new Map<string, DescMessage | DescEnum>();
  const schemas = new Map<string, JsonSchema>();
  const required = requiredFields();

  function nameOf(type: DescMessage | DescEnum): string {
    const holder = names.get(type.name);
    if (holder === undefined) names.set(type.name, type);
    return holder === undefined || holder.typeName === type.typeName ? type.name : type.typeName;
  }

  function reference(type: DescMessage | DescEnum, write: () => JsonSchema): JsonSchema {
    const name = nameOf(type);
    if (!schemas.has(name)) {
      schemas.set(name, {}); // messages may refer to themselves
      schemas.set(name, write());
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  function messageReference(message: DescMessage): JsonSchema {
    return wellKnown(message) ?? reference(message, () => messageSchema(message, new Set()));
  }

  function messageSchema(message: DescMessage, without: ReadonlySet<string>): JsonSchema {
    const fields = message.fields.filter((field) => !without.has(field.name));
    const schema: JsonSchema = { type: "object" };
    const groups = message.oneofs.map(
      (oneof) => `At most one of ${oneof.fields.map((field) => `\`${field.name}\``).join(", ")}.`,
    );
    describe(schema, [comments.get(message.typeName), ...groups].filter((text) => text !== undefined).join("\n\n"));
    schema.properties = Object.fromEntries(fields.map((field) => [field.name, fieldSchema(field)]));
    const needed = fields.filter((field) => required(field)).map((field) => field.name);
    if (needed.length > 0) schema.required = needed;
    return schema;
  }

  function enumReference(type: DescEnum): JsonSchema {
    if (type.typeName === "google.protobuf.NullValue") return { type: "null" };
    return reference(type, () => {
      const values = type.values.map(
        (value) => `- \`${value.name}\`: ${comments.get(`${type.typeName}.${value.name}`) ?? ""}`,
      );
      const schema: JsonSchema = { type: "string", enum: type.values.map((value) => value.name) };
      describe(schema, [comments.get(type.typeName) ?? "", values.join("\n")].join("\n\n"));
      return schema;
    });
  }

  function fieldSchema(field: DescField): JsonSchema {
    const rules = toRuleSchema(hasOption(field, fieldRules) ? getOption(field, fieldRules) : undefined);
    const schema = typeSchema(field, rules);
    const text = [comments.get(`${field.parent.typeName}.${field.name}`), ...rules.words].filter(Boolean).join(" ");
    describe(schema, text);
    if (getOption(field, sensitivity) === Sensitivity.SECRET) schema.format = "password";
    return schema;
  }

  function typeSchema(field: DescField, rules: RuleSchema): JsonSchema {
    switch (field.fieldKind) {
      case "list": {
        const items = { ...valueSchema(field.scalar, field.enum, field.message), ...rules.items };
        return { type: "array", items, ...rules.own };
      }
      case "map": {
        const values = { ...valueSchema(field.scalar, field.enum, field.message), ...rules.items };
        const schema: JsonSchema = { type: "object", additionalProperties: values, ...rules.own };
        if (Object.keys(rules.keys).length > 0) schema.propertyNames = rules.keys;
        return schema;
      }
      default:
        return { ...valueSchema(field.scalar, field.enum, field.message), ...rules.own };
    }
  }

  function valueSchema(
    scalar: ScalarType | undefined,
    type: DescEnum | undefined,
    message: DescMessage | undefined,
  ): JsonSchema {
    if (message !== undefined) return messageReference(message);
    if (type !== undefined) return enumReference(type);
    return scalarSchema(scalar);
  }

  return {
    reference: messageReference,
    field: fieldSchema,
    body(message, without) {
      return { ...messageSchema(message, without), additionalProperties: false };
    },
    isRequired: required,
    components: () => Object.fromEntries([...schemas].sort(([a], [b]) => (a < b ? -1 : 1))),
  };
}

function describe(schema: JsonSchema, text: string): void {
  if (text !== "") schema.description = text;
}

/**
 * Tells which fields a message must have: those whose rules it breaks without
 * them. The rules themselves decide, so nothing is guessed from their form.
 */
function requiredFields(): (field: DescField) => boolean {
  const validator = createValidator();
  const known = new Map<string, ReadonlySet<string>>();
  return (field) => {
    const message = field.parent;
    let names = known.get(message.typeName);
    if (names === undefined) {
      const result = validator.validate(message, create(message));
      const violations = result.kind === "invalid" ? result.violations : [];
      const paths = violations.map((violation) => violation.field[0]);
      names = new Set(paths.flatMap((element) => (element?.kind === "field" ? [element.name] : [])));
      known.set(message.typeName, names);
    }
    return names.has(field.name);
  };
}

function scalarSchema(scalar: ScalarType | undefined): JsonSchema {
  switch (scalar) {
    case ScalarType.BOOL:
      return { type: "boolean" };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: "integer", format: "int32" };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: "integer", format: "uint32", minimum: 0, maximum: 4_294_967_295 };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return { type: "string", format: "int64", pattern: "^-?[0-9]+$" };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: "string", format: "uint64", pattern: "^[0-9]+$" };
    case ScalarType.FLOAT:
      return { type: "number", format: "float" };
    case ScalarType.DOUBLE:
      return { type: "number", format: "double" };
    case ScalarType.BYTES:
      return { type: "string", contentEncoding: "base64" };
    default:
      return { type: "string" };
  }
}

/** Messages with a JSON form of their own (https://protobuf.dev/programming-guides/json/). */
function wellKnown(message: DescMessage): JsonSchema | undefined {
  switch (message.typeName) {
    case "google.protobuf.Timestamp":
      return { type: "string", format: "date-time", examples: ["2026-01-02T03:04:05.678Z"] };
    case "google.protobuf.Duration":
      return { type: "string", pattern: "^-?[0-9]+(\\.[0-9]{1,9})?s$", examples: ["30s"] };
    case "google.protobuf.FieldMask":
      return { type: "string" };
    case "google.protobuf.Struct":
    case "google.protobuf.Any":
      return { type: "object", additionalProperties: true };
    case "google.protobuf.ListValue":
      return { type: "array", items: {} };
    case "google.protobuf.Value":
      return {};
    default: {
      if (!/^google\.protobuf\.\w+Value$/.test(message.typeName)) return undefined;
      const { type, ...rest } = scalarSchema(message.fields[0]?.scalar);
      return { ...rest, type: [String(type), "null"] };
    }
  }
}
