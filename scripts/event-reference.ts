import { readFileSync, writeFileSync } from "node:fs";
import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  getOption,
  hasOption,
  type JsonValue,
  type Message,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { FieldRulesSchema, field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { EventMetadataSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { Sensitivity, sensitivity } from "@cadre/gen/cadre/options/v1/options_pb";
import { type Comments, readComments } from "../services/gateway/openapi/comments.ts";
import { deadLetterTopicOf, type Fact, subjectOf, type Topic, topics } from "../services/runtime/bus/topics.ts";

const introduction = `<!-- Written by scripts/event-reference.ts from the topics and their contracts. -->
# Events

What is told on the bus, by topic. Each event is one message in Confluent's wire format, beside headers that name it; a
consumer that cannot handle one puts it aside on the dead-letter topic ([guides/events.md](guides/events.md),
[guides/kafka.md](guides/kafka.md)). Events of one key keep their order. The examples are the vectors of
\`test/vectors/events.json\`, which hold the bytes of each.

`;

/** An example of each topic's event, and its bytes. */
interface EventVector {
  readonly topic: string;
  readonly event: JsonValue;
}

/**
 * The reference of all topics' events in Markdown, from their contracts.
 *
 * @param descriptorSet of all contracts, with comments
 * @param vectors an event of each topic
 */
export function eventReference(descriptorSet: Uint8Array, vectors: readonly EventVector[]): string {
  const comments = readComments(descriptorSet);
  const described = new Set<DescMessage | DescEnum>(topics.map(({ message }) => message));
  const within = topics.flatMap(({ message }) => typesWithin(message, described));
  const rows = topics.map(
    ({ name, message }) =>
      `| [\`${name}\`](#${anchorOf(name)}) | \`${message.typeName}\` | ${lineOf(comments, message)} |`,
  );
  return [
    `${introduction}| topic | message | |\n|---|---|---|\n${rows.join("\n")}\n`,
    ...topics.map((topic) => sectionOf(topic, comments, vectors)),
    "## Types within them\n",
    ...within.map((type) => (type.kind === "enum" ? enumSection(type, comments) : messageSection(type, comments))),
  ].join("\n");
}

function sectionOf(
  topic: Pick<Topic, "name" | "partitions" | "message">,
  comments: Comments,
  vectors: readonly EventVector[],
): string {
  const { name, partitions, message } = topic;
  const vector = vectors.find((one) => one.topic === name);
  if (vector === undefined) throw new Error(`test/vectors/events.json has no event of ${name}`);
  return `## ${name}

${comments.get(message.typeName) ?? ""}

\`${message.typeName}\` of \`${message.file.proto.name}\`, registered as \`${subjectOf(topic)}\`. Key
\`${keyOf(topic as unknown as Topic)}\`, ${partitions} partitions; dead letters on \`${deadLetterTopicOf(name)}\`.

${fieldTable(message, comments)}
\`\`\`json
${JSON.stringify(vector.event, null, 2)}
\`\`\`
`;
}

/** The key with the names of the fields that it is made of, as the topic makes it of an event that holds names. */
function keyOf({ message, objectId }: Topic): string {
  const named = (schema: DescMessage, prefix: string): Message => {
    const texts = schema.fields.filter(({ scalar }) => scalar === ScalarType.STRING);
    return create(schema, Object.fromEntries(texts.map(({ localName, name }) => [localName, `<${prefix}${name}>`])));
  };
  const event = Object.assign(named(message, ""), { metadata: named(EventMetadataSchema, "metadata.") });
  return `<metadata.org_id>:${objectId(event as unknown as Fact)}`;
}

function messageSection(message: DescMessage, comments: Comments): string {
  return `### ${message.name}\n\n${comments.get(message.typeName) ?? ""}\n\n${fieldTable(message, comments)}`;
}

function enumSection(type: DescEnum, comments: Comments): string {
  const values = type.values.map(
    ({ name, number }) => `| ${number} | \`${name}\` | ${inCell(comments.get(`${type.typeName}.${name}`))} |\n`,
  );
  const table = `| | value | meaning |\n|---|---|---|\n${values.join("")}`;
  return `### ${type.name}\n\n${comments.get(type.typeName) ?? ""}\n\n${table}`;
}

function fieldTable(message: DescMessage, comments: Comments): string {
  const rows = message.fields.map((field) => {
    const meaning = inCell(comments.get(`${message.typeName}.${field.name}`));
    return `| ${field.number} | \`${field.name}\` | ${typeOf(field)} | ${meaning} | ${rulesOf(field)} |\n`;
  });
  return `| | field | type | meaning | rules |\n|---|---|---|---|---|\n${rows.join("")}`;
}

function typeOf(field: DescField): string {
  const named = field.message ?? field.enum;
  const single = named === undefined ? ScalarType[field.scalar ?? 0]?.toLowerCase() : linkTo(named);
  if (field.fieldKind === "list") return `repeated ${single}`;
  if (field.fieldKind === "map") return `map of ${ScalarType[field.mapKey]?.toLowerCase()} to ${single}`;
  return field.proto.proto3Optional ? `optional ${single}` : `${single}`;
}

function linkTo(type: DescMessage | DescEnum): string {
  if (type.typeName === "cadre.errors.v1.Reason") return "[Reason](errors.md)";
  return isOurs(type) ? `[${type.name}](#${type.name.toLowerCase()})` : `\`${type.typeName}\``;
}

/** What the contract demands of a field: the rules of buf.validate by their names, and who may see it. */
function rulesOf(field: DescField): string {
  const parts: string[] = [];
  if (hasOption(field, fieldRules)) {
    const rules = toJson(FieldRulesSchema, getOption(field, fieldRules), { useProtoFieldName: true });
    parts.push(...flatten("", rules));
  }
  const shown = getOption(field, sensitivity);
  if (shown !== Sensitivity.UNSPECIFIED) parts.push(Sensitivity[shown]);
  return parts.map((part) => `\`${inCell(part)}\``).join(", ");
}

function flatten(path: string, value: JsonValue): readonly string[] {
  if (Array.isArray(value)) return [`${path}: ${value.map((one) => JSON.stringify(one)).join(", ")}`];
  if (typeof value !== "object" || value === null) return value === true ? [path] : [`${path}: ${value}`];
  return Object.entries(value).flatMap(([name, inner]) => flatten(path === "" ? name : `${path}.${name}`, inner));
}

/** The types of ours that a message is made of and that are not described yet, each after who has it. */
function typesWithin(
  message: DescMessage,
  described: Set<DescMessage | DescEnum>,
): readonly (DescMessage | DescEnum)[] {
  return message.fields.flatMap((field) => {
    const type = field.message ?? field.enum;
    if (type === undefined || !isOurs(type) || type.typeName === "cadre.errors.v1.Reason" || described.has(type))
      return [];
    described.add(type);
    return type.kind === "enum" ? [type] : [type, ...typesWithin(type, described)];
  });
}

function isOurs({ typeName }: DescMessage | DescEnum): boolean {
  return typeName.startsWith("cadre.");
}

/** A message's first sentence. */
function lineOf(comments: Comments, { typeName }: DescMessage): string {
  return inCell(comments.get(typeName)?.replace(/\.\s[^]*$/, "."));
}

function inCell(text = ""): string {
  return text.replaceAll("\n\n", " ").replaceAll("|", "\\|");
}

/** GitHub's anchor of a heading. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replaceAll(".", "");
}

/** The events that the repository has examples of. */
export function readVectors(): readonly EventVector[] {
  return JSON.parse(readFileSync("test/vectors/events.json", "utf8")) as readonly EventVector[];
}

if (import.meta.main) {
  const target = process.argv[2] ?? "docs/events.md";
  writeFileSync(target, eventReference(readFileSync("gen/descriptor-set.binpb"), readVectors()));
}
