import type { Compatibility } from "../domain/compatibility/level.ts";
import { createComparer, type VersionFinding } from "../domain/incompatible.ts";
import type { RegistryView, VersionRow } from "../store/registry-store.ts";
import { withFieldUses } from "./find-field-use.ts";
import { linkVersion, type ResolvedSchema } from "./link-schema.ts";

/** Findings that are told. */
const maxFindings = 100;

/**
 * Why a schema cannot follow versions, in their order; empty if it can. One
 * version is held in memory at a time, and none is read after the hundredth
 * finding. Those about a field say who reads it.
 */
export async function findBreaks(
  view: RegistryView,
  { schema, imports }: ResolvedSchema,
  rows: readonly VersionRow[],
  level: Compatibility,
): Promise<readonly VersionFinding[]> {
  if (level === "NONE" || rows.length === 0) return [];
  const compare = createComparer({ ...schema, imports }, level);
  const findings: VersionFinding[] = [];
  for (const row of rows) {
    if (findings.length >= maxFindings) break;
    findings.push(...compare(await linkVersion(view, row)));
  }
  return withFieldUses(view.fieldReads, findings.slice(0, maxFindings));
}
