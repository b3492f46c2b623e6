import { create, createFileRegistry, type DescFile, fromBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { BoundedMap } from "../cache/bounded-map.ts";
import { AppError } from "../errors/app-error.ts";
import { wellKnownFiles } from "../reflection/well-known-file.ts";
import {
  askRegistry,
  importsOf,
  pathOf,
  type RegistryAccess,
  registryUnavailable,
  type SchemaReference,
  schemaOf,
} from "./confluent-registry.ts";
import type { SchemaIds } from "./schema-ids.ts";

interface RegisteredSchema {
  readonly schema: string;
  readonly references?: readonly SchemaReference[];
}

/** Ids come from frames, which strangers may have written. */
const maxFiles = 1_000;
const maxImports = 500;

/**
 * The ids of a registry that speaks the Confluent Schema Registry's REST API.
 * A file is looked up as it is in this build, under the subject of its topic,
 * and each file that it imports under its path, as `cadre contracts push` and
 * Confluent's serializers register them. Nothing is registered here.
 *
 * What was found is remembered, as ids never change; what was not is asked for
 * again. Throws AppError UNAVAILABLE if the registry cannot be asked.
 */
export function createRegistrySchemaIds(access: RegistryAccess): SchemaIds {
  const ids = new Map<string, Promise<number>>();
  const versions = new Map<string, Promise<SchemaReference>>();
  const files = new BoundedMap<number, Promise<DescFile | undefined>>(maxFiles);

  async function lookUp(subject: string, file: DescFile): Promise<{ readonly id: number; readonly version: number }> {
    const references = await Promise.all(importsOf(file).map(referenceTo));
    const found = await askRegistry(access, "POST", pathOf(subject), schemaOf(file, references));
    if (found === undefined) {
      const message = `${file.proto.name} of this build is not registered under the subject ${subject}`;
      throw new AppError("SCHEMA_NOT_REGISTERED", message);
    }
    return found as { id: number; version: number };
  }

  function referenceTo(file: DescFile): Promise<SchemaReference> {
    const { name } = file.proto;
    return remember(versions, name, async () => ({ name, subject: name, version: (await lookUp(name, file)).version }));
  }

  async function load(id: number): Promise<DescFile | undefined> {
    const registered = await askSerialized(access, `/schemas/ids/${id}`);
    if (registered === undefined) return undefined;
    const file = decodeFile(registered.schema);
    const sorted: FileDescriptorProto[] = [];
    await loadImports(registered.references ?? [], sorted, new Set());
    const set = create(FileDescriptorSetSchema, { file: [...wellKnownFiles, ...sorted, file] });
    return createFileRegistry(set).getFile(file.name);
  }

  /** Files by their references, each after what it imports. */
  async function loadImports(
    references: readonly SchemaReference[],
    sorted: FileDescriptorProto[],
    seen: Set<string>,
  ): Promise<void> {
    for (const { name, subject, version } of references) {
      if (seen.has(name)) continue;
      seen.add(name);
      if (seen.size > maxImports) throw registryUnavailable(`a schema imports more than ${maxImports} files`);
      const path = `${pathOf(subject)}/versions/${version}?deleted=true`;
      const found = await askSerialized(access, path);
      if (found === undefined)
        throw registryUnavailable(`version ${version} of ${subject} is referred to and not there`);
      await loadImports(found.references ?? [], sorted, seen);
      const file = decodeFile(found.schema);
      file.name = name;
      sorted.push(file);
    }
  }

  return {
    idOf: (subject, file) =>
      remember(ids, `${subject} ${file.proto.name}`, async () => (await lookUp(subject, file)).id),
    fileOf: async (id) => {
      const file = await remember(files, id, () => load(id));
      if (file === undefined) files.delete(id);
      return file;
    },
  };
}

/** One request for a value at a time; a failure is forgotten, so that the next one asks again. */
function remember<K, V>(
  known: Pick<Map<K, Promise<V>>, "get"> & { set(key: K, value: Promise<V>): unknown; delete(key: K): unknown },
  key: K,
  find: () => Promise<V>,
): Promise<V> {
  const before = known.get(key);
  if (before !== undefined) return before;
  const found = find();
  known.set(key, found);
  found.catch(() => known.delete(key));
  return found;
}

function decodeFile(base64: string): FileDescriptorProto {
  try {
    return fromBinary(FileDescriptorProtoSchema, Buffer.from(base64, "base64"));
  } catch (cause) {
    throw registryUnavailable("a schema comes in another form than the descriptor that was asked for", cause);
  }
}

/**
 * The schema at a path as a descriptor in base64; `undefined` for 404. Apicurio
 * takes every schema for text: asked for the descriptor of one that was
 * registered as a descriptor it answers 500, and gives it to who does not ask.
 */
async function askSerialized(access: RegistryAccess, path: string): Promise<RegisteredSchema | undefined> {
  const serialized = `${path}${path.includes("?") ? "&" : "?"}format=serialized`;
  try {
    return (await askRegistry(access, "GET", serialized)) as RegisteredSchema | undefined;
  } catch (refused) {
    const asItIs = (await askRegistry(access, "GET", path)) as RegisteredSchema | undefined;
    if (asItIs === undefined || isBase64(asItIs.schema)) return asItIs;
    throw refused;
  }
}

function isBase64(text: string): boolean {
  return /^[A-Za-z0-9+/]+=*$/.test(text);
}
