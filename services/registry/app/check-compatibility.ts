import { versionsToCompare } from "../domain/compatibility/level.ts";
import type { VersionFinding } from "../domain/incompatible.ts";
import type { SchemaInput } from "../domain/schema.ts";
import { effectiveSettings } from "../domain/settings.ts";
import { assertSubject } from "../domain/subject.ts";
import type { RegistryDeps } from "./deps.ts";
import { findBreaks } from "./find-breaks.ts";
import { latest, pickVersion } from "./find-version.ts";
import { resolveSchema } from "./link-schema.ts";

/**
 * Why a schema could not follow a subject's versions; empty if it could.
 *
 * @param version the one version to compare with, or `latest`; those of the subject's level if left out
 * @throws AppError SUBJECT_NOT_FOUND, SCHEMA_VERSION_NOT_FOUND, INVALID_SCHEMA
 */
export async function checkCompatibility(
  { store }: Pick<RegistryDeps, "store">,
  orgId: string,
  subject: string,
  input: SchemaInput,
  version: number | undefined,
): Promise<readonly VersionFinding[]> {
  assertSubject(subject);
  return store.read(orgId, async (view) => {
    const resolved = await resolveSchema(view, input);
    const { compatibility: level } = effectiveSettings(await view.settings(subject));
    const rows = await view.versions(subject);
    const live = rows.filter(({ deleted }) => !deleted);
    if (version === undefined) return findBreaks(view, resolved, versionsToCompare(level, live), level);
    const compared = version === latest ? live.slice(-1) : [pickVersion(subject, rows, version, false)];
    return findBreaks(view, resolved, compared, level);
  });
}
