import type { DescEnum } from "@bufbuild/protobuf";
import type { Finding } from "./finding.ts";

/** What of an enum's new form breaks who holds to the earlier one. */
export function compareEnum(previous: DescEnum, next: DescEnum): readonly Finding[] {
  const findings: Finding[] = [];
  const found = (rule: string, member: string, detail: string): void => {
    findings.push({ rule, file: `${next.file.name}.proto`, typeName: next.typeName, member, detail });
  };
  const isReserved = (number: number): boolean =>
    next.proto.reservedRange.some(({ start, end }) => number >= start && number <= end);
  const namesOf = Map.groupBy(next.values, ({ number }) => number);
  for (const { number, name } of previous.values) {
    const names = (namesOf.get(number) ?? []).map((value) => value.name);
    const member = `value ${number} (${name})`;
    if (names.length === 0 && !isReserved(number)) {
      found(
        "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED",
        member,
        `the value was removed without reserving its number ${number}`,
      );
    } else if (names.length > 0 && !names.includes(name)) {
      found("ENUM_VALUE_SAME_NAME", member, `the number ${number} is ${names.join(", ")} now; it is not used again`);
    }
  }
  for (const { start, end } of previous.proto.reservedRange) {
    const isKept = next.proto.reservedRange.some((range) => range.start <= start && range.end >= end);
    if (!isKept) {
      const range = start === end ? `${start}` : `${start} to ${end}`;
      found("RESERVED_ENUM_NO_DELETE", range, "the number is no longer reserved");
    }
  }
  for (const name of previous.proto.reservedName) {
    if (!next.proto.reservedName.includes(name)) {
      found("RESERVED_ENUM_NO_DELETE", name, "the name is no longer reserved");
    }
  }
  return findings;
}
