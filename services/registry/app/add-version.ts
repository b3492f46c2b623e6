import type { Limits } from "../../runtime/identity/limits.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import { versionsToCompare } from "../domain/compatibility/level.ts";
import type { VersionFinding } from "../domain/incompatible.ts";
import { assertRoom } from "../domain/limit.ts";
import type { ReadSchema, SchemaInput } from "../domain/schema.ts";
import { invalidSchema } from "../domain/schema-fault.ts";
import { assertWritable, effectiveSettings } from "../domain/settings.ts";
import type { RegistryChange, VersionRow } from "../store/registry-store.ts";
import { findBreaks } from "./find-breaks.ts";
import { type FoundVersion, schemaOf } from "./find-version.ts";
import { resolveSchema } from "./link-schema.ts";

/** Who registers: the org's UUID, and the subject of the principal. */
export interface Registrant {
  readonly orgId: string;
  readonly subject: string;
}

/** Leave to break who holds to earlier versions. */
export interface Force {
  /** Why; kept with the version. */
  readonly reason: string;
  /** Called before what breaks is committed; what it throws takes everything back. */
  readonly onForced: (subject: string) => Promise<void>;
}

/** What an org may have. */
export interface Room {
  /** The org's id, `org_…`. */
  readonly org: string;
  readonly subjects: number;
  readonly versions: number;
}

/** What is kept of how a version came to be. */
export interface Origin {
  readonly by: string;
  /** Why it may break; empty if it may not. */
  readonly reason: string;
  /** The UUID of the review that it was approved in. */
  readonly reviewId?: string;
}

/** A version that a schema is from now on, or was before. */
export interface AddedVersion extends FoundVersion {
  readonly read: ReadSchema;
  readonly isNew: boolean;
  /** The latest version before, of a new one. */
  readonly previous: VersionRow | undefined;
  /** What a new one breaks. Who does not want that fails the transaction. */
  readonly findings: readonly VersionFinding[];
}

/** Reads what an org may have. */
export async function readRoom(limits: Limits, orgId: string): Promise<Room> {
  const org = fromUuid("org", orgId);
  return {
    org,
    subjects: await limits.get(org, "subjects"),
    versions: await limits.get(org, "subject_versions"),
  };
}

/**
 * Makes a schema the next version of a subject that the transaction has for
 * itself, unless it is one already; says what it breaks, and leaves it to the
 * caller to refuse that.
 *
 * @throws AppError INVALID_SCHEMA, REGISTRY_READ_ONLY, LIMIT_EXCEEDED
 */
export async function addVersion(
  change: RegistryChange,
  subject: string,
  input: SchemaInput,
  room: Room,
  origin: Origin,
): Promise<AddedVersion> {
  const resolved = await resolveSchema(change, input);
  const { schema: read } = resolved;
  if (!(await change.hold(read.references))) {
    throw invalidSchema("a version that it refers to was deleted at the same time");
  }
  const rows = await change.versions(subject);
  const live = rows.filter(({ deleted }) => !deleted);
  const knownId = await change.schemaIdOf(read.digest);
  const known = live.find(({ schemaId }) => schemaId === knownId);
  if (known !== undefined) {
    return { row: known, schema: await schemaOf(change, known), read, isNew: false, previous: undefined, findings: [] };
  }

  const settings = await change.settings(subject);
  assertWritable(subject, settings);
  if (rows.length === 0) assertRoom(room.org, "subjects", await change.countSubjects(), room.subjects);
  else assertRoom(room.org, "subject_versions", rows.length, room.versions);
  const { compatibility } = effectiveSettings(settings);
  const findings = await findBreaks(change, resolved, versionsToCompare(compatibility, live), compatibility);
  const schemaId = await change.addSchema(read, resolved.referencedIds);
  const version = (rows.at(-1)?.version ?? 0) + 1;
  const forcedReason = findings.length > 0 ? origin.reason : "";
  const row = { subject, version, schemaId, deleted: false, forcedReason };
  await change.addVersion(row, origin.by, origin.reviewId);
  return { row, schema: await schemaOf(change, row), read, isNew: true, previous: live.at(-1), findings };
}
