import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { compareField, isRequired } from "./compare-field.ts";
import type { Finding } from "./finding.ts";
import type { Directions } from "./level.ts";

/** What of a message's new form breaks who holds to the earlier one. */
export function compareMessage(previous: DescMessage, next: DescMessage, directions: Directions): readonly Finding[] {
  const findings: Finding[] = [];
  const place = { file: `${next.file.name}.proto`, typeName: next.typeName };
  const found = (rule: string, member: string, detail: string): void => {
    findings.push({ ...place, rule, member, detail });
  };
  const lost = (rule: string, { name: field }: DescField, now: DescField, detail: string): void => {
    findings.push({ ...place, rule, member: nameOf(now), field, detail });
  };
  const fields = new Map(next.fields.map((field) => [field.number, field]));
  for (const field of previous.fields) {
    const same = fields.get(field.number);
    if (same !== undefined) {
      for (const { rule, detail } of compareField(field, same, directions)) lost(rule, field, same, detail);
    } else if (!isReserved(next, field.number)) {
      const detail = `the field was removed without reserving its number ${field.number}`;
      lost("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", field, field, detail);
    }
    if (same === undefined && isRequired(field) && directions.forward) {
      lost("MESSAGE_SAME_REQUIRED_FIELDS", field, field, "a required field was removed: earlier readers demand it");
    }
  }
  const numbers = new Set(previous.fields.map(({ number }) => number));
  for (const field of next.fields) {
    if (!numbers.has(field.number) && isRequired(field) && directions.backward) {
      found("MESSAGE_SAME_REQUIRED_FIELDS", nameOf(field), "a required field was added: earlier data does not have it");
    }
  }
  for (const { start, end } of previous.proto.reservedRange) {
    const free = firstFree(next, start, end);
    if (free !== undefined) found("RESERVED_MESSAGE_NO_DELETE", String(free), "the number is no longer reserved");
  }
  for (const name of previous.proto.reservedName) {
    if (!next.proto.reservedName.includes(name)) {
      found("RESERVED_MESSAGE_NO_DELETE", name, "the name is no longer reserved");
    }
  }
  return findings;
}

function nameOf({ number, name }: DescField): string {
  return `field ${number} (${name})`;
}

function isReserved({ proto }: DescMessage, number: number): boolean {
  return proto.reservedRange.some(({ start, end }) => number >= start && number < end);
}

/** The first number from `start` up to but not including `end` that is not reserved. */
function firstFree({ proto }: DescMessage, start: number, end: number): number | undefined {
  let number = start;
  // Each pass goes past one range, so there are as many passes as ranges.
  for (const range of [...proto.reservedRange].sort((a, b) => a.start - b.start)) {
    if (number >= range.start && number < range.end) number = range.end;
  }
  return number < end ? number : undefined;
}
