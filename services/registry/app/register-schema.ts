import { fromUuid } from "../../runtime/ids/id.ts";
import { versionsToCompare } from "../domain/compatibility/level.ts";
import { incompatible } from "../domain/incompatible.ts";
import { assertRoom } from "../domain/limit.ts";
import type { SchemaInput } from "../domain/schema.ts";
import { invalidSchema } from "../domain/schema-fault.ts";
import { assertWritable, effectiveSettings } from "../domain/settings.ts";
import { assertSubject } from "../domain/subject.ts";
import type { RegistryDeps } from "./deps.ts";
import { findBreaks } from "./find-breaks.ts";
import { type FoundVersion, schemaOf } from "./find-version.ts";
import { resolveSchema } from "./link-schema.ts";

/** Leave to break who holds to earlier versions. */
export interface Force {
  /** Why; kept with the version. */
  readonly reason: string;
  /** Called before a version is added; what it throws ends the registration. */
  readonly onForced: () => Promise<void>;
}

/**
 * Makes a schema the subject's next version, unless it is one already.
 *
 * @param force registers it whatever it breaks
 * @throws AppError INVALID_SCHEMA, SCHEMA_INCOMPATIBLE, REGISTRY_READ_ONLY, LIMIT_EXCEEDED
 */
export async function registerSchema(
  { store, limits }: RegistryDeps,
  orgId: string,
  subject: string,
  input: SchemaInput,
  force?: Force,
): Promise<FoundVersion> {
  assertSubject(subject);
  const org = fromUuid("org", orgId);
  const allowed = {
    subjects: await limits.get(org, "subjects"),
    versions: await limits.get(org, "subject_versions"),
  };
  return store.change(orgId, subject, async (change) => {
    const resolved = await resolveSchema(change, input);
    if (!(await change.hold(resolved.schema.references))) {
      throw invalidSchema("a version that it refers to was deleted at the same time");
    }
    const rows = await change.versions(subject);
    const live = rows.filter(({ deleted }) => !deleted);
    const knownId = await change.schemaIdOf(resolved.schema.digest);
    const known = live.find(({ schemaId }) => schemaId === knownId);
    if (known !== undefined) return { row: known, schema: await schemaOf(change, known) };

    const settings = await change.settings(subject);
    assertWritable(subject, settings);
    if (rows.length === 0) assertRoom(org, "subjects", await change.countSubjects(), allowed.subjects);
    else assertRoom(org, "subject_versions", rows.length, allowed.versions);
    if (force === undefined) {
      const { compatibility } = effectiveSettings(settings);
      const findings = await findBreaks(change, resolved, versionsToCompare(compatibility, live), compatibility);
      if (findings.length > 0) throw incompatible(subject, findings);
    } else await force.onForced();
    const schemaId = await change.addSchema(resolved.schema, resolved.referencedIds);
    const version = (rows.at(-1)?.version ?? 0) + 1;
    const row = { subject, version, schemaId, deleted: false, forcedReason: force?.reason ?? "" };
    await change.addVersion(row);
    return { row, schema: await schemaOf(change, row) };
  });
}
