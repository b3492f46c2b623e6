import { AppError } from "../../runtime/errors/app-error.ts";
import { assertWritable } from "../domain/settings.ts";
import { assertSubject } from "../domain/subject.ts";
import type { RegistryChange, VersionRow } from "../store/registry-store.ts";
import type { RegistryDeps } from "./deps.ts";
import { latest, latestOf, pickVersion, subjectNotFound } from "./find-version.ts";

/**
 * Deletes all versions of a subject with its settings, or for good those that
 * were deleted.
 *
 * @returns their numbers
 * @throws AppError SUBJECT_NOT_FOUND, SCHEMA_DELETION, SCHEMA_REFERENCED, REGISTRY_READ_ONLY
 */
export async function deleteSubject(
  { store }: Pick<RegistryDeps, "store">,
  orgId: string,
  subject: string,
  permanent: boolean,
): Promise<readonly number[]> {
  assertSubject(subject);
  return store.change(orgId, [subject], async (change) => {
    assertWritable(subject, await change.settings(subject));
    const rows = await change.versions(subject);
    const live = rows.filter(({ deleted }) => !deleted);
    if (rows.length === 0) throw subjectNotFound(subject);
    if (permanent && live.length > 0) {
      throw deletion("subject_not_deleted", `subject ${subject} is not deleted: delete it, then permanently`);
    }
    if (!permanent && live.length === 0) {
      throw deletion("subject_deleted", `subject ${subject} is deleted already; only permanently it can be again`);
    }
    const affected = permanent ? rows : live;
    await assertUnreferenced(change, affected);
    const versions = affected.map(({ version }) => version);
    if (permanent) await change.remove(subject, versions);
    else {
      await change.markDeleted(subject, versions);
      await change.putSettings(subject, { compatibility: undefined, mode: undefined });
    }
    return versions;
  });
}

/**
 * Deletes one version, or for good one that was deleted.
 *
 * @returns its number
 * @throws AppError as `deleteSubject`; SCHEMA_VERSION_NOT_FOUND
 */
export async function deleteVersion(
  { store }: Pick<RegistryDeps, "store">,
  orgId: string,
  subject: string,
  version: number,
  permanent: boolean,
): Promise<number> {
  assertSubject(subject);
  return store.change(orgId, [subject], async (change) => {
    assertWritable(subject, await change.settings(subject));
    const rows = await change.versions(subject);
    const row =
      permanent && version === latest ? latestOf(rows) : pickVersion(subject, rows, version, version !== latest);
    if (row === undefined) throw subjectNotFound(subject);
    const place = `version ${row.version} of subject ${subject}`;
    if (permanent && !row.deleted) {
      throw deletion("version_not_deleted", `${place} is not deleted: delete it, then permanently`);
    }
    if (!permanent && row.deleted) {
      throw deletion("version_deleted", `${place} is deleted already; only permanently it can be again`);
    }
    await assertUnreferenced(change, [row]);
    if (permanent) await change.remove(subject, [row.version]);
    else await change.markDeleted(subject, [row.version]);
    return row.version;
  });
}

async function assertUnreferenced(change: RegistryChange, rows: readonly VersionRow[]): Promise<void> {
  for (const { subject, version } of rows) {
    const ids = await change.referencing(subject, version, 10);
    if (ids.length > 0) {
      const message = `version ${version} of subject ${subject} is referred to by the schemas ${ids.join(", ")}`;
      throw new AppError("SCHEMA_REFERENCED", message);
    }
  }
}

function deletion(state: string, message: string): AppError {
  return new AppError("SCHEMA_DELETION", message, { metadata: { state } });
}
