import type { Generated } from "kysely";

/** An org. Row-level security: itself alone. */
export interface OrgTable {
  readonly org_id: string;
  readonly name: string;
  /** Whether it runs the installation; one org does. */
  readonly operator: Generated<boolean>;
  readonly created_at: Generated<Date>;
  deleted_at: Date | null;
}

/** The one row that says that the installation was set up. */
export interface InstallationTable {
  readonly id: Generated<boolean>;
  readonly org_id: string;
  /** By which a lost or foreign HMAC key is noticed at start. */
  readonly key_check: Buffer;
}

/** An API key. Of its text only a digest is kept. */
export interface ApiKeyTable {
  readonly key_id: string;
  readonly org_id: string;
  readonly name: string;
  /** `cadre.credentials.v1.Role`. */
  readonly role: number;
  readonly scopes: string[];
  readonly tools: string[];
  /** The first 12 characters of the text. */
  readonly prefix: string;
  /** HMAC-SHA-256 of the text. */
  readonly digest: Buffer;
  /** The subject that issued it; empty for the first key of an org. */
  readonly created_by: string;
  readonly created_at: Generated<Date>;
  readonly expires_at: Date | null;
  last_used_at: Date | null;
  revoked_at: Date | null;
}

/** A limit that an org has set; those that it has not are not here. */
export interface OrgLimitTable {
  readonly org_id: string;
  readonly name: string;
  value: bigint;
}

/** The one row with the number of the newest change. Its lock puts changes in the order of their commits. */
export interface RevisionTable {
  readonly id: Generated<boolean>;
  value: bigint;
}

/** A JWT that was ended before its time. */
export interface RevokedTokenTable {
  readonly org_id: string;
  readonly issuer: string;
  readonly token_id: string;
  /** After that it has ended by itself, and so has what was started with it. */
  remembered_until: Date;
  readonly revoked_at: Generated<Date>;
}

/** What changed, kept for as long as a watcher may need it. */
export interface ChangeTable {
  readonly revision: bigint;
  readonly kind: "credential_revoked" | "limits_changed";
  readonly org_id: string;
  readonly subject: string;
  readonly token_id: string;
  readonly event_id: string;
  readonly at: Generated<Date>;
  /** What it comes from; empty if that was not kept. */
  readonly request_id: string;
  readonly traceparent: string;
}

/** The processes of this service that tell watchers of changes. */
export interface ReplicaTable {
  readonly process_id: string;
  seen_at: Generated<Date>;
}

/** The audit log: appended to, never changed. The org of what belongs to none is all zeros. */
export interface AuditEntryTable {
  readonly org_id: string;
  /** Without gaps within an org. */
  readonly seq: bigint;
  readonly event_id: string;
  readonly at: Date;
  readonly type: string;
  readonly actor: string;
  readonly action: string;
  readonly resource: string;
  /** `cadre.credentials.v1.AuditDecision`. */
  readonly decision: number;
  readonly reason: string;
  readonly request_id: string;
  readonly trace_id: string;
  readonly source: string;
  readonly count: number;
  readonly previous_hash: Buffer;
  readonly hash: Buffer;
}

/** The end of each org's audit log, sealed with the server's key so that a log cut short is noticed. */
export interface AuditHeadTable {
  readonly org_id: string;
  seq: bigint;
  hash: Buffer;
  mac: Buffer;
}

/** The one row that says who relays, and up to which revision changes were relayed. */
export interface RelayTable {
  readonly id: Generated<boolean>;
  holder: string;
  held_until: Date;
  relayed_revision: bigint;
}

/** Up to which number an org's audit log was relayed; not here before the first time. */
export interface AuditRelayedTable {
  readonly org_id: string;
  seq: bigint;
  at: Generated<Date>;
}

/** The tables of credentials. */
export interface CredentialsSchema {
  readonly org: OrgTable;
  readonly installation: InstallationTable;
  readonly api_key: ApiKeyTable;
  readonly org_limit: OrgLimitTable;
  readonly revoked_token: RevokedTokenTable;
  readonly revision: RevisionTable;
  readonly change: ChangeTable;
  readonly replica: ReplicaTable;
  readonly audit_entry: AuditEntryTable;
  readonly audit_head: AuditHeadTable;
  readonly relay: RelayTable;
  readonly audit_relayed: AuditRelayedTable;
}
