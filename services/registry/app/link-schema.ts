import { fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { LinkedVersion } from "../domain/incompatible.ts";
import type { Imports } from "../domain/protobuf/compile-protobuf.ts";
import { readSchema } from "../domain/read-schema.ts";
import type { ReadSchema, Reference, SchemaInput } from "../domain/schema.ts";
import { invalidSchema } from "../domain/schema-fault.ts";
import { assertSubject } from "../domain/subject.ts";
import type { ImportedFile, RegistryView, VersionRow } from "../store/registry-store.ts";
import { latestOf } from "./find-version.ts";

/** A schema that was read with what its references stand for. */
export interface ResolvedSchema {
  readonly schema: ReadSchema;
  readonly imports: Imports;
  /** The ids of the schemas that it refers to, in the order of its references. */
  readonly referencedIds: readonly number[];
}

/**
 * Finds what a schema refers to, and reads it.
 *
 * @throws AppError INVALID_SCHEMA also for a reference to what is not there
 */
export async function resolveSchema(view: RegistryView, input: SchemaInput): Promise<ResolvedSchema> {
  const references: Reference[] = [];
  const referencedIds: number[] = [];
  for (const reference of input.references) {
    const row = await findReferenced(view, reference);
    references.push({ ...reference, version: row.version });
    referencedIds.push(row.schemaId);
  }
  const direct = await view.schemas(referencedIds);
  const imports = toImports([
    ...references.map(({ name }, index) => ({
      name,
      schemaId: referencedIds[index] ?? 0,
      descriptor: direct.find(({ schemaId }) => schemaId === referencedIds[index])?.descriptor,
    })),
    ...(await view.imports(referencedIds)),
  ]);
  return { schema: readSchema({ ...input, references }, imports), imports, referencedIds };
}

async function findReferenced(view: RegistryView, { name, subject, version }: Reference): Promise<VersionRow> {
  assertSubject(subject);
  const live = (await view.versions(subject)).filter(({ deleted }) => !deleted);
  const row = version === -1 ? latestOf(live) : live.find((one) => one.version === version);
  if (row === undefined) throw invalidSchema(`reference ${name}: subject ${subject} has no version ${version}`);
  return row;
}

/** Versions with what each imports, in the order given. */
export async function linkVersions(view: RegistryView, rows: readonly VersionRow[]): Promise<readonly LinkedVersion[]> {
  const ids = rows.map(({ schemaId }) => schemaId);
  const schemas = new Map((await view.schemas(ids)).map((schema) => [schema.schemaId, schema]));
  const imported = await view.imports(ids);
  return rows.map(({ version, schemaId }) => {
    const schema = schemas.get(schemaId);
    if (schema === undefined) throw new Error("a version whose schema is not there");
    const imports = toImports(imported.filter(({ rootId }) => rootId === schemaId));
    return { version, type: schema.type, descriptor: schema.descriptor, imports };
  });
}

function toImports(files: readonly Omit<ImportedFile, "rootId">[]): Imports {
  const imports = new Map<string, FileDescriptorProto>();
  const ids = new Map<string, number>();
  for (const { name, schemaId, descriptor } of files) {
    const other = ids.get(name);
    if (other !== undefined && other !== schemaId) {
      throw invalidSchema(`${name} is imported twice, as schema ${other} and as schema ${schemaId}`);
    }
    ids.set(name, schemaId);
    if (descriptor === undefined || imports.has(name)) continue;
    const file = fromBinary(FileDescriptorProtoSchema, descriptor);
    // Whoever imports it knows it by that path.
    file.name = name;
    imports.set(name, file);
  }
  return imports;
}
