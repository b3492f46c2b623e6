import { AppError } from "../../runtime/errors/app-error.ts";
import type { RegistryView, StoredSchema, VersionRow } from "../store/registry-store.ts";

/** A version with its schema. */
export interface FoundVersion {
  readonly row: VersionRow;
  readonly schema: StoredSchema;
}

/** Stands for the latest version that is not deleted. */
export const latest = -1;

/** The last of versions in ascending order. */
export function latestOf(rows: readonly VersionRow[]): VersionRow | undefined {
  return rows.at(-1);
}

/**
 * A version among those of a subject.
 *
 * @param withDeleted whether deleted ones count
 * @throws AppError SUBJECT_NOT_FOUND, SCHEMA_VERSION_NOT_FOUND
 */
export function pickVersion(
  subject: string,
  rows: readonly VersionRow[],
  version: number,
  withDeleted: boolean,
): VersionRow {
  const candidates = withDeleted ? rows : rows.filter(({ deleted }) => !deleted);
  if (candidates.length === 0) throw subjectNotFound(subject);
  const row = version === latest ? latestOf(candidates) : candidates.find((one) => one.version === version);
  if (row === undefined) {
    throw new AppError("SCHEMA_VERSION_NOT_FOUND", `subject ${subject} has no version ${version}`);
  }
  return row;
}

/** A version with its schema. Throws as `pickVersion`. */
export async function findVersion(
  view: RegistryView,
  subject: string,
  version: number,
  withDeleted: boolean,
): Promise<FoundVersion> {
  const row = pickVersion(subject, await view.versions(subject), version, withDeleted);
  return { row, schema: await schemaOf(view, row) };
}

/** The schema of a version that is there. */
export async function schemaOf(view: RegistryView, { schemaId }: VersionRow): Promise<StoredSchema> {
  const [schema] = await view.schemas([schemaId]);
  if (schema === undefined) throw new Error("a version whose schema is not there");
  return schema;
}

/** The failure of a subject that is not there. */
export function subjectNotFound(subject: string): AppError {
  return new AppError("SUBJECT_NOT_FOUND", `there is no subject ${subject}`);
}
