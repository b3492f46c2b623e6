import type { ApiKeyEnvironment } from "../../runtime/identity/api-key.ts";
import type { PageTokens } from "../../runtime/page/page-token.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import type { ChangeHub } from "../changes/change-hub.ts";
import type { AuditLog } from "../store/audit-log.ts";
import type { CredentialsSchema } from "../store/schema.ts";

/** What the use cases of credentials work with. */
export interface CredentialsDeps {
  readonly database: Database<CredentialsSchema>;
  readonly auditLog: AuditLog;
  readonly changes: ChangeHub;
  readonly pageTokens: PageTokens;
  readonly hmacKey: Uint8Array;
  /** Of the keys that are issued. */
  readonly environment: ApiKeyEnvironment;
}
