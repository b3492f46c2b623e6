import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { AppError } from "../../runtime/errors/app-error.ts";
import { compareProtobuf, type ProtobufVersion } from "./compatibility/compare-protobuf.ts";
import { describeFinding, type Finding } from "./compatibility/finding.ts";
import { type Compatibility, directionsOf } from "./compatibility/level.ts";
import { describeFieldUse, type FieldUse } from "./field-use.ts";
import { createRegistry, type Imports } from "./protobuf/compile-protobuf.ts";
import type { SchemaType } from "./schema.ts";

/** A schema with what it imports. */
export interface LinkedSchema {
  readonly type: SchemaType;
  readonly descriptor: Uint8Array | undefined;
  readonly imports: Imports;
}

/** The same as a version of a subject. */
export interface LinkedVersion extends LinkedSchema {
  readonly version: number;
}

/** A finding, and the version that it was found against. */
export interface VersionFinding extends Finding {
  readonly version: number;
  /** Who reads the field; undefined of none, or if nobody samples its message. */
  readonly use?: FieldUse;
}

/** Says why a schema cannot follow a version; nothing if it can. */
export type Comparer = (version: LinkedVersion) => readonly VersionFinding[];

/**
 * Compares a schema with versions under a level that is not NONE. Languages but
 * Protobuf are not compared, so nothing of theirs can follow anything.
 */
export function createComparer(schema: LinkedSchema, level: Exclude<Compatibility, "NONE">): Comparer {
  const next = schema.type === "PROTOBUF" ? toProtobuf(schema) : undefined;
  const whole = { file: "", typeName: "", member: "" };
  const compare = (previous: LinkedVersion): readonly Finding[] => {
    if (schema.type !== previous.type) {
      return [{ ...whole, rule: "SCHEMA_SAME_TYPE", detail: `the schema was ${previous.type} and is ${schema.type}` }];
    }
    if (next === undefined) {
      const detail = `${schema.type} schemas are not compared: an admin sets the subject's compatibility to NONE`;
      return [{ ...whole, rule: "SCHEMA_TYPE_NOT_COMPARED", detail }];
    }
    return compareProtobuf(toProtobuf(previous), next, directionsOf(level));
  };
  return (version) => compare(version).map((finding) => ({ ...finding, version: version.version }));
}

function toProtobuf({ descriptor, imports }: LinkedSchema): ProtobufVersion {
  if (descriptor === undefined) throw new TypeError("a Protobuf schema has a descriptor");
  const proto = fromBinary(FileDescriptorProtoSchema, descriptor);
  const registry = createRegistry(proto, imports);
  const file = registry.getFile(proto.name);
  if (file === undefined) throw new TypeError("a registry has the file that it was made of");
  return { file, registry };
}

/** The failure of a schema that cannot follow. */
export function incompatible(subject: string, findings: readonly VersionFinding[]): AppError {
  const shown = findings.slice(0, 5).map(describeVersionFinding).join("; ");
  const rest = findings.length > 5 ? `; and ${findings.length - 5} more` : "";
  return new AppError("SCHEMA_INCOMPATIBLE", `the schema cannot follow those of subject ${subject}: ${shown}${rest}`, {
    violations: findings.slice(0, 20).map((finding) => ({
      field: "schema",
      message: describeVersionFinding(finding),
      rule: finding.rule,
    })),
  });
}

/** The failure of contracts that cannot follow, of which nothing is registered. */
export function incompatibleSet(
  contracts: readonly { readonly subject: string; readonly findings: readonly VersionFinding[] }[],
): AppError {
  const all = contracts.flatMap(({ subject, findings }) =>
    findings.map((finding) => ({ rule: finding.rule, message: `${subject}: ${describeVersionFinding(finding)}` })),
  );
  const shown = all.slice(0, 5).map(({ message }) => message);
  const rest = all.length > 5 ? `; and ${all.length - 5} more` : "";
  return new AppError("SCHEMA_INCOMPATIBLE", `nothing is registered: ${shown.join("; ")}${rest}`, {
    violations: all.slice(0, 20).map(({ rule, message }) => ({ field: "contracts", message, rule })),
  });
}

/** A finding as one line that names the version as well, and who reads the field. */
export function describeVersionFinding(finding: VersionFinding): string {
  const use = finding.use === undefined ? "" : `; ${describeFieldUse(finding.use)}`;
  return `version ${finding.version}: ${describeFinding(finding)}${use}`;
}
