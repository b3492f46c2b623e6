import { incompatible } from "../domain/incompatible.ts";
import type { SchemaInput } from "../domain/schema.ts";
import { assertSubject } from "../domain/subject.ts";
import { addVersion, type Force, type Registrant, readRoom } from "./add-version.ts";
import type { RegistryDeps } from "./deps.ts";
import type { FoundVersion } from "./find-version.ts";

/**
 * Makes a schema the subject's next version, unless it is one already.
 *
 * @param force registers it whatever it breaks
 * @throws AppError INVALID_SCHEMA, SCHEMA_INCOMPATIBLE, REGISTRY_READ_ONLY, LIMIT_EXCEEDED
 */
export async function registerSchema(
  { store, limits }: RegistryDeps,
  registrant: Registrant,
  subject: string,
  input: SchemaInput,
  force?: Force,
): Promise<FoundVersion> {
  assertSubject(subject);
  const room = await readRoom(limits, registrant.orgId);
  const origin = { by: registrant.subject, reason: force?.reason ?? "" };
  return store.change(registrant.orgId, [subject], async (change) => {
    const added = await addVersion(change, subject, input, room, origin);
    if (added.findings.length > 0) {
      if (force === undefined) throw incompatible(subject, added.findings);
      await force.onForced(subject);
    }
    return added;
  });
}
