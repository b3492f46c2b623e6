import { AppError } from "../../runtime/errors/app-error.ts";
import { assertSubject } from "../domain/subject.ts";
import type { Page, Presence, StoredSchema, VersionOrigin, VersionRow } from "../store/registry-store.ts";
import type { RegistryDeps } from "./deps.ts";
import { type FoundVersion, findVersion, pickVersion, subjectNotFound } from "./find-version.ts";

/** References to one version, and versions of one schema, that are told. */
const maxListed = 10_000;

type Reads = Pick<RegistryDeps, "store">;

/** The names of an org's subjects. */
export function listSubjects(
  { store }: Reads,
  orgId: string,
  prefix: string,
  presence: Presence,
  page: Page,
): Promise<readonly string[]> {
  return store.read(orgId, (view) => view.subjects(prefix, presence, page));
}

/** The numbers of a subject's versions. Throws AppError SUBJECT_NOT_FOUND if it has none of those asked for. */
export async function listVersions(
  { store }: Reads,
  orgId: string,
  subject: string,
  presence: Presence,
  { offset, limit }: Page,
): Promise<readonly number[]> {
  assertSubject(subject);
  const rows = await store.read(orgId, (view) => view.versions(subject));
  const found = rows.filter(({ deleted }) => presence === "all" || deleted === (presence === "deleted"));
  if (found.length === 0) throw subjectNotFound(subject);
  return found.slice(offset, offset + limit).map(({ version }) => version);
}

/** How a subject's versions came to be. Throws AppError SUBJECT_NOT_FOUND. */
export async function listHistory(
  { store }: Reads,
  orgId: string,
  subject: string,
  page: Page,
): Promise<readonly VersionOrigin[]> {
  assertSubject(subject);
  const history = await store.read(orgId, (view) => view.history(subject, page));
  if (history.length === 0 && page.offset === 0) throw subjectNotFound(subject);
  return history;
}

/** One version, or the latest. Throws AppError SUBJECT_NOT_FOUND, SCHEMA_VERSION_NOT_FOUND. */
export function getVersion(
  { store }: Reads,
  orgId: string,
  subject: string,
  version: number,
  withDeleted: boolean,
): Promise<FoundVersion> {
  assertSubject(subject);
  return store.read(orgId, (view) => findVersion(view, subject, version, withDeleted));
}

/** The ids of the schemas that refer to a version. Throws as `getVersion`. */
export function listReferencing(
  { store }: Reads,
  orgId: string,
  subject: string,
  version: number,
): Promise<readonly number[]> {
  assertSubject(subject);
  return store.read(orgId, async (view) => {
    const row = pickVersion(subject, await view.versions(subject), version, true);
    return view.referencing(subject, row.version, maxListed);
  });
}

/** The schema that an id stands for. Throws AppError SCHEMA_NOT_FOUND. */
export async function getSchema({ store }: Reads, orgId: string, schemaId: number): Promise<StoredSchema> {
  const [schema] = await store.read(orgId, (view) => view.schemas([schemaId]));
  if (schema === undefined) throw schemaNotFound(schemaId);
  return schema;
}

/** The versions that a schema is. Throws AppError SCHEMA_NOT_FOUND if no version is. */
export async function listUsages(
  { store }: Reads,
  orgId: string,
  schemaId: number,
  withDeleted: boolean,
): Promise<readonly VersionRow[]> {
  const rows = await store.read(orgId, (view) => view.usages(schemaId, maxListed));
  if (rows.length === 0) throw schemaNotFound(schemaId);
  return rows.filter(({ deleted }) => withDeleted || !deleted);
}

function schemaNotFound(schemaId: number): AppError {
  return new AppError("SCHEMA_NOT_FOUND", `there is no schema ${schemaId}`);
}
