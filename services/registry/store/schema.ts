import type { Generated } from "kysely";
import type { Compatibility } from "../domain/compatibility/level.ts";
import type { DecidedState } from "../domain/review.ts";
import type { SchemaType } from "../domain/schema.ts";
import type { RegistryMode } from "../domain/settings.ts";

/** The tables of the registry, as `migrations` makes them. */
export interface RegistrySchema {
  schema: SchemaTable;
  schema_reference: SchemaReferenceTable;
  subject_version: SubjectVersionTable;
  setting: SettingTable;
  review: ReviewTable;
  review_subject: ReviewSubjectTable;
}

/** Schemas, each once an org. Ids are of the whole installation, so that no frame means two things. */
interface SchemaTable {
  schema_id: Generated<number>;
  org_id: string;
  /** SHA-256 over language, content and references. */
  digest: Uint8Array;
  schema_type: SchemaType;
  text: string;
  descriptor: Uint8Array | null;
  created_at: Generated<Date>;
}

/** What schemas import, in the order of theirs. */
interface SchemaReferenceTable {
  schema_id: number;
  position: number;
  org_id: string;
  name: string;
  subject: string;
  version: number;
  /** The schema that the version is. */
  referenced_id: number;
}

/** The versions of subjects. */
interface SubjectVersionTable {
  org_id: string;
  subject: string;
  version: number;
  schema_id: number;
  deleted: Generated<boolean>;
  /** Why it was registered whatever it breaks; empty if nothing. */
  forced_reason: Generated<string>;
  /** Who registered it; empty of a version from before this was kept. */
  registered_by: Generated<string>;
  /** The digest of the set that it was pushed with; empty if it came by itself. */
  set_digest: Generated<string>;
  /** The review that it was approved in. */
  review_id: string | null;
  created_at: Generated<Date>;
}

/** What is set for subjects, and under the empty name for the org. */
interface SettingTable {
  org_id: string;
  subject: string;
  compatibility: Compatibility | null;
  mode: RegistryMode | null;
}

/** Sets that break, for an admin to decide on. */
interface ReviewTable {
  review_id: string;
  org_id: string;
  /** The digest of the set. */
  digest: string;
  /** An open one that nobody decided on in time has expired. */
  state: Generated<"open" | DecidedState>;
  reason: string;
  requested_by: string;
  requested_at: Generated<Date>;
  expires_at: Generated<Date>;
  /** The files, as JSON; null once it is closed. */
  files: string | null;
  /** What the set changes, as JSON. */
  compared: string;
  decided_by: Generated<string>;
  decided_at: Date | null;
  decision_reason: Generated<string>;
}

/** The subjects that reviews change. */
interface ReviewSubjectTable {
  org_id: string;
  review_id: string;
  subject: string;
  breaks: boolean;
}
