import { readFile } from "node:fs/promises";
import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { AppError } from "../errors/app-error.ts";
import { wellKnownFile } from "../reflection/well-known-file.ts";

/** Where a schema registry is, and as whom it is asked. */
export interface RegistryAccess {
  /** Of a registry that speaks Confluent's REST API: Cadre's own is at `/registry`. */
  readonly url: string;
  /** A file with `name:password`, read for each request; of Cadre's own registry the password is an API key. */
  readonly credentialsFile: string | undefined;
}

/** A file that a schema imports, and where it is registered. */
export interface SchemaReference {
  readonly name: string;
  readonly subject: string;
  readonly version: number;
}

/** What a registry answered. */
export interface RegistryAnswer {
  readonly status: number;
  /** Whether it is one of success. */
  readonly ok: boolean;
  readonly text: string;
}

const mediaType = "application/vnd.schemaregistry.v1+json";
const requestTimeoutMs = 5_000;
const retryAfterMs = 1_000;
const maxAnswerBytes = 8 * 1024 * 1024;

/** The files that a file imports and that have to be registered, which those that every compiler has do not. */
export function importsOf(file: DescFile): readonly DescFile[] {
  return file.dependencies.filter(({ proto }) => wellKnownFile(proto.name) === undefined);
}

/** A file as a registry is asked for it, and as it is registered: the descriptor of this build. */
export function schemaOf(file: DescFile, references: readonly SchemaReference[]) {
  const schema = Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)).toString("base64");
  return { schemaType: "PROTOBUF", schema, references };
}

/** Where a subject is in the API. */
export function pathOf(subject: string): string {
  return `/subjects/${encodeURIComponent(subject)}`;
}

/**
 * Makes one request of the Confluent Schema Registry's REST API.
 *
 * @throws AppError UNAVAILABLE if there is no answer within five seconds
 */
export async function requestOf(
  { url, credentialsFile }: RegistryAccess,
  method: "GET" | "POST",
  path: string,
  body?: unknown,
): Promise<RegistryAnswer> {
  const headers: Record<string, string> = { accept: mediaType };
  if (body !== undefined) headers["content-type"] = mediaType;
  try {
    if (credentialsFile !== undefined) {
      const credentials = (await readFile(credentialsFile, "utf8")).trim();
      headers["authorization"] = `Basic ${Buffer.from(credentials).toString("base64")}`;
    }
    const response = await fetch(`${url}${path}`, {
      method,
      headers,
      redirect: "error",
      signal: AbortSignal.timeout(requestTimeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (Number(response.headers.get("content-length") ?? 0) > maxAnswerBytes)
      throw new Error("the answer is too large");
    return { status: response.status, ok: response.ok, text: await response.text() };
  } catch (cause) {
    throw registryUnavailable("it cannot be reached", cause);
  }
}

/**
 * The JSON that a path answers; `undefined` for 404.
 *
 * @throws AppError UNAVAILABLE for every other answer
 */
export async function askRegistry(
  access: RegistryAccess,
  method: "GET" | "POST",
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { status, ok, text } = await requestOf(access, method, path, body);
  if (status === 404) return undefined;
  if (!ok) throw registryUnavailable(`it answered ${status} to ${method} ${path}`, new Error(text.slice(0, 500)));
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw registryUnavailable(`it answered no JSON to ${method} ${path}`, cause);
  }
}

export function registryUnavailable(what: string, cause?: unknown): AppError {
  return new AppError("UNAVAILABLE", `the schema registry: ${what}`, { cause, retryAfterMs });
}
