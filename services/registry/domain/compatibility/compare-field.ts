import { type DescField, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence as Presence } from "@bufbuild/protobuf/wkt";
import type { Directions } from "./level.ts";

/** A rule that a field breaks, and how. */
interface FieldFinding {
  readonly rule: string;
  readonly detail: string;
}

/** What of a field's new form breaks who holds to the earlier one with the same number. */
export function compareField(previous: DescField, next: DescField, directions: Directions): readonly FieldFinding[] {
  const findings: FieldFinding[] = [];
  const found = (rule: string, detail: string): void => void findings.push({ rule, detail });
  if (previous.name !== next.name) {
    found("FIELD_SAME_NAME", `the number ${next.number} was the field ${previous.name}; it is not used again`);
  } else if (previous.jsonName !== next.jsonName) {
    found("FIELD_SAME_JSON_NAME", `the name in JSON was ${previous.jsonName} and is ${next.jsonName}`);
  }
  const before = cardinalityOf(previous);
  const after = cardinalityOf(next);
  if (before !== after) found("FIELD_WIRE_COMPATIBLE_CARDINALITY", `it was ${before} and is ${after}`);
  else {
    const detail = compareTypes(previous, next, directions);
    if (detail !== undefined) found("FIELD_WIRE_COMPATIBLE_TYPE", detail);
  }
  const oneofBefore = previous.oneof?.name;
  const oneofAfter = next.oneof?.name;
  if (oneofBefore !== oneofAfter) found("FIELD_SAME_ONEOF", describeMove(oneofBefore, oneofAfter));
  if (!isRequired(previous) && isRequired(next) && directions.backward) {
    found("MESSAGE_SAME_REQUIRED_FIELDS", "the field became required: earlier data may not have it");
  }
  if (isRequired(previous) && !isRequired(next) && directions.forward) {
    found("MESSAGE_SAME_REQUIRED_FIELDS", "the field is no longer required: earlier readers demand it");
  }
  return findings;
}

/** Whether who reads a message refuses it without the field. */
export function isRequired(field: DescField): boolean {
  return field.presence === Presence.LEGACY_REQUIRED;
}

function cardinalityOf({ fieldKind }: DescField): "singular" | "repeated" | "a map" {
  if (fieldKind === "list") return "repeated";
  return fieldKind === "map" ? "a map" : "singular";
}

function describeMove(before: string | undefined, after: string | undefined): string {
  if (before === undefined) return `it moved into the oneof ${after}`;
  return after === undefined ? `it moved out of the oneof ${before}` : `it moved from the oneof ${before} to ${after}`;
}

/** Scalars of one row have the same form on the wire (https://protobuf.dev/programming-guides/proto3/#updating). */
const sameWireForm: readonly (readonly ScalarType[])[] = [
  [ScalarType.INT32, ScalarType.INT64, ScalarType.UINT32, ScalarType.UINT64, ScalarType.BOOL],
  [ScalarType.SINT32, ScalarType.SINT64],
  [ScalarType.FIXED32, ScalarType.SFIXED32],
  [ScalarType.FIXED64, ScalarType.SFIXED64],
];

function compareTypes(previous: DescField, next: DescField, directions: Directions): string | undefined {
  const detail = `its type was ${typeOf(previous)} and is ${typeOf(next)}`;
  if (previous.fieldKind === "map" && next.fieldKind === "map" && previous.mapKey !== next.mapKey) {
    if (!isSameScalar(previous.mapKey, next.mapKey, directions)) return detail;
  }
  if (previous.message !== undefined || next.message !== undefined) {
    const isSame = previous.message?.typeName === next.message?.typeName && isDelimited(previous) === isDelimited(next);
    return isSame ? undefined : detail;
  }
  if (previous.enum !== undefined || next.enum !== undefined) {
    return previous.enum?.typeName === next.enum?.typeName ? undefined : detail;
  }
  return isSameScalar(previous.scalar, next.scalar, directions) ? undefined : detail;
}

function isSameScalar(before: ScalarType | undefined, after: ScalarType | undefined, directions: Directions): boolean {
  if (before === after) return true;
  if (before === undefined || after === undefined) return false;
  // Any text is bytes; not any bytes are text.
  if (before === ScalarType.STRING && after === ScalarType.BYTES) return !directions.forward;
  if (before === ScalarType.BYTES && after === ScalarType.STRING) return !directions.backward;
  return sameWireForm.some((row) => row.includes(before) && row.includes(after));
}

/** Whether a message is written between tags, as groups are. */
function isDelimited(field: DescField): boolean {
  return "delimitedEncoding" in field && field.delimitedEncoding;
}

function typeOf(field: DescField): string {
  const value = field.message?.typeName ?? field.enum?.typeName ?? scalarName(field.scalar);
  return field.fieldKind === "map" ? `map<${scalarName(field.mapKey)}, ${value}>` : value;
}

function scalarName(scalar: ScalarType | undefined): string {
  return scalar === undefined ? "" : ScalarType[scalar].toLowerCase();
}
