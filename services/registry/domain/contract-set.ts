import { createHash } from "node:crypto";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { FieldUse } from "./field-use.ts";
import type { VersionFinding } from "./incompatible.ts";
import { assertSubject } from "./subject.ts";

/** A file of a set. */
export interface Contract {
  /** What others import it by; its first subject. */
  readonly path: string;
  /** Its text, or a `FileDescriptorProto` in base64. */
  readonly schema: string;
  /** The paths that it imports, without those of Protobuf's own files. */
  readonly imports: readonly string[];
  /** Its further subjects. */
  readonly subjects: readonly string[];
}

/** How a contract stands to the subject's versions: `follows` if nothing but what it imports has changed. */
export type ContractState = "same" | "new" | "changed" | "follows" | "breaks";

/** A contract under one of its subjects. */
export interface ComparedContract {
  readonly path: string;
  readonly subject: string;
  readonly state: ContractState;
  /** The latest version before it; 0 if there is none, or if it is the same. */
  readonly base: number;
  readonly version: number;
  readonly schemaId: number;
  readonly findings: readonly VersionFinding[];
  /** Who reads the fields that it removes though that breaks nothing; the first 100. */
  readonly removed: readonly FieldUse[];
}

/** A set under all of its subjects. */
export interface ContractSet {
  readonly contracts: readonly ComparedContract[];
  readonly digest: string;
}

/** Whether registering it makes a version. */
export function isChanged({ state }: ComparedContract): boolean {
  return state !== "same";
}

/** All subjects of a file; the first one stands for it where it is imported. */
export function subjectsOf({ path, subjects }: Contract): readonly string[] {
  return [path, ...subjects];
}

const maxSubjects = 1_000;

/**
 * Holds a set to its form: each file comes after those that it imports, each
 * subject once, and of them at most 1,000.
 *
 * @throws AppError INVALID_ARGUMENT
 */
export function assertContractSet(contracts: readonly Contract[]): void {
  const paths = new Set<string>();
  const subjects = new Set<string>();
  for (const [index, contract] of contracts.entries()) {
    const missing = contract.imports.find((path) => !paths.has(path));
    if (missing !== undefined) {
      throw invalid(index, `${contract.path} imports ${missing}, which is not among the contracts before it`);
    }
    paths.add(contract.path);
    for (const subject of subjectsOf(contract)) {
      assertSubject(subject);
      if (subjects.has(subject)) throw invalid(index, `${subject} is the subject of two contracts`);
      subjects.add(subject);
    }
    if (subjects.size > maxSubjects) throw invalid(index, `these are more than ${maxSubjects} subjects`);
  }
}

function invalid(index: number, message: string): AppError {
  const violations = [{ field: `contracts[${index}]`, message, rule: "contract" }];
  return new AppError("INVALID_ARGUMENT", message, { violations });
}

/**
 * SHA-256 over subjects and what they stand for, as `sha256:` and hexadecimal
 * digits. Neither order nor versions count, so that a set has one digest in
 * all registries.
 */
export function digestOfSet(
  members: readonly { readonly subject: string; readonly contentDigest: Uint8Array }[],
): string {
  const lines = members.map(
    ({ subject, contentDigest }) => `${Buffer.from(contentDigest).toString("hex")}  ${subject}\n`,
  );
  return `sha256:${createHash("sha256").update(lines.sort().join("")).digest("hex")}`;
}
