import { fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { LinkedVersion } from "../domain/incompatible.ts";
import type { Imports } from "../domain/protobuf/compile-protobuf.ts";
import { readSchema } from "../domain/read-schema.ts";
import type { ReadSchema, Reference, SchemaInput } from "../domain/schema.ts";
import { invalidSchema } from "../domain/schema-fault.ts";
import { assertSubject } from "../domain/subject.ts";
import type { RegistryView, VersionRow } from "../store/registry-store.ts";
import { latestOf } from "./find-version.ts";

/** A schema that was read with what its references stand for. */
export interface ResolvedSchema {
  readonly schema: ReadSchema;
  readonly imports: Imports;
  /** The ids of the schemas that it refers to, in the order of its references. */
  readonly referencedIds: readonly number[];
}

/** The descriptors of all that a schema imports, together. */
const maxImportedBytes = 8 * 1024 * 1024;
const maxImports = 500;

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
  const direct = references.map(({ name }, index) => ({ name, schemaId: referencedIds[index] ?? 0 }));
  const imports = await loadImports(view, direct, referencedIds);
  return { schema: readSchema({ ...input, references }, imports), imports, referencedIds };
}

async function findReferenced(view: RegistryView, { name, subject, version }: Reference): Promise<VersionRow> {
  assertSubject(subject);
  const live = (await view.versions(subject)).filter(({ deleted }) => !deleted);
  const row = version === -1 ? latestOf(live) : live.find((one) => one.version === version);
  if (row === undefined) throw invalidSchema(`reference ${name}: subject ${subject} has no version ${version}`);
  return row;
}

/** A version with what it imports. */
export async function linkVersion(view: RegistryView, { version, schemaId }: VersionRow): Promise<LinkedVersion> {
  const [schema] = await view.schemas([schemaId]);
  if (schema === undefined) throw new Error("a version whose schema is not there");
  const imports = await loadImports(view, [], [schemaId]);
  return { version, type: schema.type, descriptor: schema.descriptor, imports };
}

/** Files by the paths of their imports: those that are named, and all that schemas import. */
async function loadImports(
  view: RegistryView,
  named: readonly { readonly name: string; readonly schemaId: number }[],
  schemaIds: readonly number[],
): Promise<Imports> {
  const imported = await view.imports(schemaIds, maxImports + 1);
  const bytes = imported.reduce((sum, file) => sum + file.bytes, 0);
  if (imported.length > maxImports || bytes > maxImportedBytes) {
    throw invalidSchema(
      `it imports more than ${maxImports} files, or more than ${maxImportedBytes} bytes of descriptors`,
    );
  }
  const ids = new Map<string, number>();
  for (const { name, schemaId } of [...named, ...imported]) {
    const other = ids.get(name) ?? schemaId;
    if (other !== schemaId) {
      throw invalidSchema(`${name} is imported twice, as schema ${other} and as schema ${schemaId}`);
    }
    ids.set(name, schemaId);
  }
  const descriptors = await view.descriptors([...new Set(ids.values())]);
  const imports = new Map<string, FileDescriptorProto>();
  for (const [name, schemaId] of ids) {
    const descriptor = descriptors.get(schemaId);
    if (descriptor === undefined) continue;
    const file = fromBinary(FileDescriptorProtoSchema, descriptor);
    // Whoever imports it knows it by that path.
    file.name = name;
    imports.set(name, file);
  }
  return imports;
}
