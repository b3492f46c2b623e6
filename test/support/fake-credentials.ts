import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type AuditEvent, AuditSinkService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import {
  AuthenticationService,
  type Principal,
  PrincipalKind,
  PrincipalSchema,
} from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { type Implementation, implement } from "../../services/runtime/rpc/implementation.ts";

/** What other services ask of credentials, from a table instead of a database. */
export interface FakeCredentials {
  readonly implementations: readonly Implementation[];
  readonly orgId: string;
  /** The org of `other.test.key`. */
  readonly otherOrgId: string;
  /** What was audited, in order. */
  readonly auditEvents: readonly AuditEvent[];
}

/** The credentials that are accepted: `<role>.test.key`, with every scope; `none.test.key`, with none; `other.test.key`, an owner's of another org. */
const roles: Readonly<Record<string, Role>> = {
  member: Role.MEMBER,
  developer: Role.DEVELOPER,
  admin: Role.ADMIN,
  owner: Role.OWNER,
  other: Role.OWNER,
  none: Role.OWNER,
};

/** Creates it, with two orgs. @param instead what is answered otherwise than from the table */
export function createFakeCredentials(
  instead: Partial<ServiceImpl<typeof AuthenticationService>> = {},
): FakeCredentials {
  const orgId = newId("org");
  const otherOrgId = newId("org");
  const auditEvents: AuditEvent[] = [];
  const principals = new Map<string, Principal>(
    Object.entries(roles).map(([name, role]) => [
      `${name}.test.key`,
      create(PrincipalSchema, {
        kind: PrincipalKind.KEY,
        subject: newId("key"),
        orgId: name === "other" ? otherOrgId : orgId,
        role,
        scopes: name === "none" ? [] : ["*"],
      }),
    ]),
  );
  const authentication = implement(AuthenticationService, {
    authenticate({ credential }) {
      const principal = principals.get(credential);
      if (principal === undefined) throw new AppError("UNAUTHENTICATED", "a valid credential is required");
      return { principal, revision: 1n };
    },
    checkPrincipal: ({ principal }) => ({ principal, revision: 1n }),
    getLimits: () => ({ values: { requests_per_second: 1_000_000n, request_burst: 1_000_000n }, revision: 1n }),
    async *watchChanges(_request, { signal }) {
      while (!signal.aborted) {
        yield { revision: 1n, change: { case: "heartbeat", value: {} } } as const;
        await delay(200, undefined, { signal }).catch(() => {});
      }
    },
    acknowledgeChanges: () => ({ freshForMs: 1_000 }),
    ...instead,
  });
  const sink = implement(AuditSinkService, {
    appendAuditEvents({ events }) {
      auditEvents.push(...events);
      return {};
    },
  });
  return {
    implementations: [authentication as Implementation, sink as Implementation],
    orgId,
    otherOrgId,
    auditEvents,
  };
}
