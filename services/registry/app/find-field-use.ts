import type { FieldName, FieldUse } from "../domain/field-use.ts";
import type { VersionFinding } from "../domain/incompatible.ts";
import type { FieldReads } from "../store/field-read-store.ts";

/** Finds who reads fields. Those of messages that nobody samples are left out. */
export async function findFieldUses(reads: FieldReads, fields: readonly FieldName[]): Promise<readonly FieldUse[]> {
  if (fields.length === 0) return [];
  const known = await reads.of([...new Set(fields.map(({ typeName }) => typeName))]);
  const sampled = new Set(known.map(({ typeName }) => typeName));
  return fields
    .filter(({ typeName }) => sampled.has(typeName))
    .map(({ typeName, field }) => ({
      typeName,
      field,
      readers: known
        .filter((read) => read.typeName === typeName && read.field === field)
        .map(({ group, lastReadMs, agoMs }) => ({ group, lastReadMs, agoMs })),
    }));
}

/** Findings with who reads the fields that they are about. */
export async function withFieldUses(
  reads: FieldReads,
  findings: readonly VersionFinding[],
): Promise<readonly VersionFinding[]> {
  const fields = findings.flatMap(({ typeName, field }) => (field === undefined ? [] : [{ typeName, field }]));
  const uses = await findFieldUses(reads, fields);
  return findings.map((finding) => {
    const use = uses.find(({ typeName, field }) => typeName === finding.typeName && field === finding.field);
    return use === undefined ? finding : { ...finding, use };
  });
}
