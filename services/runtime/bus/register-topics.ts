import type { DescFile } from "@bufbuild/protobuf";
import { AppError, type FailureReason } from "../errors/app-error.ts";
import {
  importsOf,
  pathOf,
  type RegistryAccess,
  registryUnavailable,
  requestOf,
  type SchemaReference,
  schemaOf,
} from "./confluent-registry.ts";
import { subjectOf, type Topic } from "./topics.ts";

/** A subject that holds a file of this build. */
export interface RegisteredSubject {
  readonly subject: string;
  readonly id: number;
  readonly version: number;
  /** Whether it did not before. */
  readonly isNew: boolean;
}

/** Why a registry does not take a schema, by its status. */
const refusals: ReadonlyMap<number, FailureReason> = new Map([
  [401, "UNAUTHENTICATED"],
  [403, "SCOPE_MISSING"],
  [409, "SCHEMA_INCOMPATIBLE"],
  [422, "INVALID_SCHEMA"],
]);

/**
 * Registers the files of topics in a registry that speaks the Confluent Schema
 * Registry's REST API, as events are looked up there: each under the subject
 * of its topic, and all that they import under their paths before. Done again
 * it changes nothing. That API has no transactions: what was registered before
 * a failure stays.
 *
 * @throws AppError SCHEMA_INCOMPATIBLE, INVALID_SCHEMA, UNAUTHENTICATED or SCOPE_MISSING if it is refused,
 *   UNAVAILABLE if it cannot be asked
 */
export async function* registerTopics(
  access: RegistryAccess,
  topics: readonly Pick<Topic, "name" | "message">[],
): AsyncGenerator<RegisteredSubject> {
  const references = new Map<string, SchemaReference>();

  async function* registerImports(file: DescFile): AsyncGenerator<RegisteredSubject> {
    for (const imported of importsOf(file)) {
      const { name } = imported.proto;
      if (references.has(name)) continue;
      yield* registerImports(imported);
      const registered = await register(name, imported);
      references.set(name, { name, subject: name, version: registered.version });
      yield registered;
    }
  }

  async function register(subject: string, file: DescFile): Promise<RegisteredSubject> {
    const imported = importsOf(file).flatMap(({ proto }) => references.get(proto.name) ?? []);
    const schema = schemaOf(file, imported);
    const look = () => post(access, subject, pathOf(subject), schema);
    const before = await look();
    if (before !== undefined) return { ...toPlace(before), subject, isNew: false };
    await post(access, subject, `${pathOf(subject)}/versions`, schema);
    return { ...toPlace(await look()), subject, isNew: true };
  }

  for (const topic of topics) {
    yield* registerImports(topic.message.file);
    yield await register(subjectOf(topic), topic.message.file);
  }
}

/** What the registry answers; `undefined` for 404. */
async function post(access: RegistryAccess, subject: string, path: string, schema: unknown): Promise<unknown> {
  const { status, ok, text } = await requestOf(access, "POST", path, schema);
  if (status === 404) return undefined;
  if (!ok) throw toError(subject, status, text);
  return parse(text);
}

function toPlace(found: unknown): { readonly id: number; readonly version: number } {
  const { id, version } = (found ?? {}) as { readonly id?: unknown; readonly version?: unknown };
  if (typeof id === "number" && typeof version === "number") return { id, version };
  throw registryUnavailable("what it registered is not found there");
}

function toError(subject: string, status: number, text: string): AppError {
  const reason = refusals.get(status);
  return reason === undefined
    ? registryUnavailable(`it answered ${status} to the registration of ${subject}`, new Error(text.slice(0, 500)))
    : new AppError(reason, `the schema registry refuses ${subject}: ${messageOf(text)}`);
}

/** What the registry said, at most 1,000 characters. */
function messageOf(text: string): string {
  const { message } = Object(parse(text)) as { readonly message?: unknown };
  return (typeof message === "string" ? message : text).slice(0, 1_000);
}

/** Undefined for what is no JSON. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
