import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Incompatibility,
  RegistryService,
  type SchemaReference,
  type SchemaTextSchema,
  SchemaType,
  type SubjectVersion,
} from "@cadre/gen/cadre/registry/v1/registry_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";
import { CadreError } from "./error.ts";

/** A schema to be registered, found or checked. */
export interface SchemaInit {
  /** Its language; `protobuf` unless said. */
  readonly type?: "protobuf" | "avro" | "json";
  /** Its text, or for Protobuf a `google.protobuf.FileDescriptorProto` in base64; at most 1 MiB. */
  readonly schema: string;
  /** What it imports: the path of the import, and the version of a subject that it stands for. */
  readonly references?: readonly Pick<SchemaReference, "name" | "subject" | "version">[];
}

/** The org's schema registry. Reading wants the scope `registry.read`, changing `registry.write`. */
export interface Schemas {
  /** The names of all subjects that begin with a prefix, in order. */
  subjects(prefix?: string, options?: CallOptions): Promise<readonly string[]>;
  /**
   * Returns a version of a subject, the latest unless said.
   *
   * @throws CadreError `SUBJECT_NOT_FOUND`, `SCHEMA_VERSION_NOT_FOUND`
   */
  get(subject: string, version?: number, options?: CallOptions): Promise<SubjectVersion>;
  /** The version that a schema is; `undefined` if the subject does not have it. @throws CadreError `INVALID_SCHEMA` */
  find(subject: string, schema: SchemaInit, options?: CallOptions): Promise<SubjectVersion | undefined>;
  /** Why a schema could not follow a subject's versions; empty if it could. @throws CadreError `INVALID_SCHEMA` */
  check(subject: string, schema: SchemaInit, options?: CallOptions): Promise<readonly Incompatibility[]>;
  /**
   * Makes a schema the subject's next version, unless it is one already; wants
   * the role `developer`.
   *
   * @throws CadreError `INVALID_SCHEMA`, `SCHEMA_INCOMPATIBLE`, `REGISTRY_READ_ONLY`, `LIMIT_EXCEEDED`
   */
  register(subject: string, schema: SchemaInit, options?: CallOptions): Promise<SubjectVersion>;
  /** The same whatever it breaks, with the reason in the audit log; wants the role `admin`. */
  force(subject: string, schema: SchemaInit, reason: string, options?: CallOptions): Promise<SubjectVersion>;
}

const typeNumber = { protobuf: SchemaType.PROTOBUF, avro: SchemaType.AVRO, json: SchemaType.JSON } as const;
const latest = -1;
const pageSize = 1_000;

/** Creates the schema registry of a client. */
export function createSchemas(caller: Caller): Schemas {
  const { method } = RegistryService;
  return {
    async subjects(prefix = "", options) {
      const all: string[] = [];
      for (;;) {
        const request = { prefix, offset: all.length, limit: pageSize };
        const { subjects } = await caller.unary(method.listSubjects, request, options);
        all.push(...subjects);
        if (subjects.length < pageSize) return all;
      }
    },
    async get(subject, version = latest, options) {
      const found = await caller.unary(method.getSubjectVersion, { subject, version }, options);
      return required(found.version, "the version");
    },
    async find(subject, schema, options) {
      try {
        const request = { subject, schema: toSchemaText(schema) };
        return required((await caller.unary(method.lookupSchema, request, options)).version, "the version");
      } catch (thrown) {
        const isAbsent = thrown instanceof CadreError && /^(SUBJECT|SCHEMA)_NOT_FOUND$/.test(thrown.reason);
        if (isAbsent) return undefined;
        throw thrown;
      }
    },
    async check(subject, schema, options) {
      const request = { subject, schema: toSchemaText(schema) };
      return (await caller.unary(method.checkCompatibility, request, options)).incompatibilities;
    },
    async register(subject, schema, options) {
      const request = { subject, schema: toSchemaText(schema) };
      return required((await caller.unary(method.registerSchema, request, options)).version, "the version");
    },
    async force(subject, schema, reason, options) {
      const request = { subject, schema: toSchemaText(schema), reason };
      return required((await caller.unary(method.forceSchema, request, options)).version, "the version");
    },
  };
}

function toSchemaText({ type = "protobuf", schema, references = [] }: SchemaInit) {
  return {
    type: typeNumber[type],
    schema,
    references: references.map(({ name, subject, version }) => ({ name, subject, version })),
  } satisfies MessageInitShape<typeof SchemaTextSchema>;
}
