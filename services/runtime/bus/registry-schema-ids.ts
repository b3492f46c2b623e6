import { readFile } from "node:fs/promises";
import { create, createFileRegistry, type DescFile, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { AppError } from "../errors/app-error.ts";
import { BoundedMap } from "../identity/bounded-map.ts";
import { wellKnownFile, wellKnownFiles } from "../reflection/well-known-file.ts";
import type { SchemaIds } from "./schema-ids.ts";

/** Where a schema registry is, and as whom it is asked. */
export interface RegistryAccess {
  /** Of a registry that speaks Confluent's REST API: Cadre's own is at `/registry`. */
  readonly url: string;
  /** A file with `name:password`, read for each request; of Cadre's own registry the password is an API key. */
  readonly credentialsFile: string | undefined;
}

interface Reference {
  readonly name: string;
  readonly subject: string;
  readonly version: number;
}

interface RegisteredSchema {
  readonly schema: string;
  readonly references?: readonly Reference[];
}

const requestTimeoutMs = 5_000;
const retryAfterMs = 1_000;
const maxAnswerBytes = 8 * 1024 * 1024;
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
  const versions = new Map<string, Promise<Reference>>();
  const files = new BoundedMap<number, Promise<DescFile | undefined>>(maxFiles);

  async function lookUp(subject: string, file: DescFile): Promise<{ readonly id: number; readonly version: number }> {
    const imported = file.dependencies.filter(({ proto }) => wellKnownFile(proto.name) === undefined);
    const body = {
      schemaType: "PROTOBUF",
      schema: Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)).toString("base64"),
      references: await Promise.all(imported.map(referenceTo)),
    };
    const found = await ask(access, "POST", `/subjects/${encodeURIComponent(subject)}`, body);
    if (found === undefined) {
      const message = `${file.proto.name} of this build is not registered under the subject ${subject}`;
      throw new AppError("SCHEMA_NOT_REGISTERED", message);
    }
    return found as { id: number; version: number };
  }

  function referenceTo(file: DescFile): Promise<Reference> {
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
    references: readonly Reference[],
    sorted: FileDescriptorProto[],
    seen: Set<string>,
  ): Promise<void> {
    for (const { name, subject, version } of references) {
      if (seen.has(name)) continue;
      seen.add(name);
      if (seen.size > maxImports) throw unavailable(`a schema imports more than ${maxImports} files`);
      const path = `/subjects/${encodeURIComponent(subject)}/versions/${version}?deleted=true`;
      const found = await askSerialized(access, path);
      if (found === undefined) throw unavailable(`version ${version} of ${subject} is referred to and not there`);
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
    throw unavailable("a schema comes in another form than the descriptor that was asked for", cause);
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
    return (await ask(access, "GET", serialized)) as RegisteredSchema | undefined;
  } catch (refused) {
    const asItIs = (await ask(access, "GET", path)) as RegisteredSchema | undefined;
    if (asItIs === undefined || isBase64(asItIs.schema)) return asItIs;
    throw refused;
  }
}

function isBase64(text: string): boolean {
  return /^[A-Za-z0-9+/]+=*$/.test(text);
}

/** The JSON that a path answers; `undefined` for 404. */
async function ask({ url, credentialsFile }: RegistryAccess, method: string, path: string, body?: unknown) {
  const headers: Record<string, string> = { accept: "application/vnd.schemaregistry.v1+json" };
  if (body !== undefined) headers["content-type"] = "application/vnd.schemaregistry.v1+json";
  let response: Response;
  let text: string;
  try {
    if (credentialsFile !== undefined) {
      const credentials = (await readFile(credentialsFile, "utf8")).trim();
      headers["authorization"] = `Basic ${Buffer.from(credentials).toString("base64")}`;
    }
    response = await fetch(`${url}${path}`, {
      method,
      headers,
      redirect: "error",
      signal: AbortSignal.timeout(requestTimeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (Number(response.headers.get("content-length") ?? 0) > maxAnswerBytes)
      throw new Error("the answer is too large");
    text = await response.text();
  } catch (cause) {
    throw unavailable("it cannot be reached", cause);
  }
  if (response.status === 404) return undefined;
  if (!response.ok)
    throw unavailable(`it answered ${response.status} to ${method} ${path}`, new Error(text.slice(0, 500)));
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw unavailable(`it answered no JSON to ${method} ${path}`, cause);
  }
}

function unavailable(what: string, cause?: unknown): AppError {
  return new AppError("UNAVAILABLE", `the schema registry: ${what}`, { cause, retryAfterMs });
}
