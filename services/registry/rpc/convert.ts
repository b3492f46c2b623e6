import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  Compatibility,
  type GetSchemaResponse,
  RegistryMode,
  SchemaFormat,
  type SchemaText,
  SchemaType,
} from "@cadre/gen/cadre/registry/v1/registry_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { FoundVersion } from "../app/find-version.ts";
import type { SettingsPatch } from "../app/settings.ts";
import type { Compatibility as Level } from "../domain/compatibility/level.ts";
import { describeFieldUse, type FieldUse } from "../domain/field-use.ts";
import { describeVersionFinding, type VersionFinding } from "../domain/incompatible.ts";
import type { SchemaInput, SchemaType as Type } from "../domain/schema.ts";
import type { RegistryMode as Mode, OwnSettings } from "../domain/settings.ts";
import type { Presence, StoredSchema } from "../store/registry-store.ts";

const types: Readonly<Record<Type, SchemaType>> = {
  AVRO: SchemaType.AVRO,
  JSON: SchemaType.JSON,
  PROTOBUF: SchemaType.PROTOBUF,
};

const levels: Readonly<Record<Level, Compatibility>> = {
  NONE: Compatibility.NONE,
  BACKWARD: Compatibility.BACKWARD,
  BACKWARD_TRANSITIVE: Compatibility.BACKWARD_TRANSITIVE,
  FORWARD: Compatibility.FORWARD,
  FORWARD_TRANSITIVE: Compatibility.FORWARD_TRANSITIVE,
  FULL: Compatibility.FULL,
  FULL_TRANSITIVE: Compatibility.FULL_TRANSITIVE,
};

const modes: Readonly<Record<Mode, RegistryMode>> = {
  READWRITE: RegistryMode.READ_WRITE,
  READONLY: RegistryMode.READ_ONLY,
  READONLY_OVERRIDE: RegistryMode.READ_ONLY_OVERRIDE,
};

/** The key of a value in one of the tables above; the contract's rules let nothing else through. */
function keyOf<K extends string, V>(table: Readonly<Record<K, V>>, value: V): K {
  const found = (Object.keys(table) as K[]).find((key) => table[key] === value);
  if (found === undefined) throw new AppError("INVALID_ARGUMENT", "a value that this version does not know");
  return found;
}

/** A schema as the use cases take it. */
export function toSchemaInput(text: SchemaText | undefined): SchemaInput {
  if (text === undefined) throw new AppError("INVALID_ARGUMENT", "schema: is required");
  return {
    type: keyOf(types, text.type),
    schema: text.schema,
    references: text.references.map(({ name, subject, version }) => ({ name, subject, version })),
    normalize: text.normalize,
  };
}

/** Which of a list's items are asked for. */
export function toPresence({ deleted, deletedOnly }: { deleted: boolean; deletedOnly: boolean }): Presence {
  if (deletedOnly) return "deleted";
  return deleted ? "all" : "live";
}

/** What to change of the settings. */
export function toSettingsPatch(request: {
  readonly compatibility?: Compatibility | undefined;
  readonly mode?: RegistryMode | undefined;
}): SettingsPatch {
  const { compatibility, mode } = request;
  return {
    compatibility:
      compatibility === Compatibility.UNSPECIFIED ? "inherit" : compatibility && keyOf(levels, compatibility),
    mode: mode === RegistryMode.UNSPECIFIED ? "inherit" : mode && keyOf(modes, mode),
  };
}

/** Settings for the wire. */
export function fromSettings({ compatibility, mode }: OwnSettings) {
  return {
    compatibility: compatibility === undefined ? Compatibility.UNSPECIFIED : levels[compatibility],
    mode: mode === undefined ? RegistryMode.UNSPECIFIED : modes[mode],
  };
}

/** A schema for the wire. */
export function fromSchema(
  schema: StoredSchema,
  format: SchemaFormat,
): Pick<GetSchemaResponse, "type" | "schema"> & { references: SchemaInput["references"][number][] } {
  const isSerialized = format === SchemaFormat.SERIALIZED && schema.descriptor !== undefined;
  return {
    type: types[schema.type],
    schema: isSerialized ? Buffer.from(schema.descriptor ?? []).toString("base64") : schema.text,
    references: [...schema.references],
  };
}

/** A version for the wire. */
export function fromVersion({ row, schema }: FoundVersion, format = SchemaFormat.UNSPECIFIED) {
  const { subject, version, schemaId, deleted, forcedReason } = row;
  return { subject, version, schemaId, deleted, forcedReason, ...fromSchema(schema, format) };
}

/** A finding for the wire. */
export function fromFinding(finding: VersionFinding) {
  const { rule, file, typeName, member, version, use } = finding;
  const told = { rule, file, typeName, member, version, message: describeVersionFinding(finding) };
  return use === undefined ? told : { ...told, fieldUse: fromFieldUse(use) };
}

/** Who reads a field, for the wire. */
export function fromFieldUse(use: FieldUse) {
  const { typeName, field, readers } = use;
  return {
    typeName,
    field,
    message: describeFieldUse(use),
    readers: readers.map(({ group, lastReadMs }) => ({ group, lastReadAt: timestampFromMs(lastReadMs) })),
  };
}
