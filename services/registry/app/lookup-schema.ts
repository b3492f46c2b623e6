import { AppError } from "../../runtime/errors/app-error.ts";
import type { SchemaInput } from "../domain/schema.ts";
import { assertSubject } from "../domain/subject.ts";
import type { RegistryDeps } from "./deps.ts";
import { type FoundVersion, schemaOf, subjectNotFound } from "./find-version.ts";
import { resolveSchema } from "./link-schema.ts";

/**
 * Finds the version under which a subject has a schema, the latest of several.
 *
 * @throws AppError SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND, INVALID_SCHEMA
 */
export async function lookupSchema(
  { store }: Pick<RegistryDeps, "store">,
  orgId: string,
  subject: string,
  input: SchemaInput,
  withDeleted: boolean,
): Promise<FoundVersion> {
  assertSubject(subject);
  return store.read(orgId, async (view) => {
    const rows = (await view.versions(subject)).filter(({ deleted }) => withDeleted || !deleted);
    if (rows.length === 0) throw subjectNotFound(subject);
    const { schema } = await resolveSchema(view, input);
    const schemaId = await view.schemaIdOf(schema.digest);
    const row = rows.findLast((one) => one.schemaId === schemaId);
    if (row === undefined) throw new AppError("SCHEMA_NOT_FOUND", `subject ${subject} has no such schema`);
    return { row, schema: await schemaOf(view, row) };
  });
}
