import { create, type DescMethod, type DescService, getOption } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import {
  AuthenticationService,
  IdentityService,
  type Principal,
  PrincipalKind,
  PrincipalSchema,
} from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { authz, Exposure, exposure, Relation } from "@cadre/gen/cadre/options/v1/options_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { type CallOptions, createClient, createRouterTransport, type ServiceImpl } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { contractServices } from "../../../test/support/contract-services.ts";
import { reasonOf } from "../../../test/support/failure.ts";
import { InteropService } from "../../../test/support/gen/cadre/test/v1/interop_pb.js";
import type { Authentication } from "../identity/authenticator.ts";
import { freezePrincipal } from "../identity/principal.ts";
import { refused } from "../identity/refusal.ts";
import { newId } from "../ids/id.ts";
import { accessRules } from "./access-rule.ts";
import { authentication } from "./authentication.ts";
import { authorization } from "./authorization.ts";
import { errors } from "./errors.ts";
import { telemetry } from "./telemetry.ts";

const log = pino({ level: "silent" });
const orgId = newId("org");
const services: readonly DescService[] = await contractServices();
const methods: readonly DescMethod[] = services.flatMap((service) => service.methods);

interface Caller {
  readonly principal?: Principal;
  readonly callingService?: string;
}

function principal(role: Role, scopes: readonly string[], operator = false): Principal {
  return freezePrincipal(
    create(PrincipalSchema, {
      kind: PrincipalKind.KEY,
      subject: newId("key"),
      orgId,
      role,
      scopes: [...scopes],
      operator,
    }),
  );
}

/** Calls a method through the interceptors; the handlers only count. `undefined` brings no credential. */
async function call(method: DescMethod, caller: Caller | undefined, options: CallOptions = {}) {
  let executed = 0;
  const answer: Authentication | undefined = caller && {
    principal: caller.principal,
    callingService: caller.callingService,
  };
  const interceptors = [
    telemetry({
      host: "test",
      plane: "mesh",
      tracer: trace.getTracer("test"),
      meter: metrics.getMeter("test"),
      log,
    }),
    errors(log),
    authentication({
      authenticate() {
        if (answer === undefined) throw refused("NO_CREDENTIAL");
        return answer;
      },
    }),
    authorization(),
  ];
  const handlers: Record<string, unknown> = {};
  for (const each of method.parent.methods) {
    handlers[each.localName] =
      each.methodKind === "server_streaming" || each.methodKind === "bidi_streaming"
        ? async function* () {
            executed += 1;
            yield {};
          }
        : () => {
            executed += 1;
            return {};
          };
  }
  const transport = createRouterTransport(
    ({ service }) => service(method.parent, handlers as Partial<ServiceImpl<DescService>>),
    { router: { interceptors } },
  );
  const client = createClient(method.parent, transport) as Readonly<
    Record<string, (request: unknown, options: CallOptions) => Promise<unknown> | AsyncIterable<unknown>>
  >;
  const reason = await reasonOf(
    (async () => {
      const result = client[method.localName]?.({}, options);
      if (result !== undefined && Symbol.asyncIterator in result) for await (const _ of result);
      else await result;
    })(),
  );
  if (reason !== "ok") expect(executed, `${method.name} was executed though it failed with ${reason}`).toBe(0);
  return reason;
}

const nameOf = (method: DescMethod): string => `${method.parent.typeName}/${method.name}`;
const isOpen = (method: DescMethod): boolean =>
  getOption(method, authz).relation === Relation.ANYONE && getOption(method, authz).callers.length === 0;
const isInternal = (method: DescMethod): boolean => getOption(method.parent, exposure) === Exposure.INTERNAL;

test("the contract has services, and the matrix sees all of them", () => {
  expect(methods.length).toBeGreaterThan(30);
  expect(services).toContain(SessionService);
  expect(services).toContain(AuthenticationService);
});

describe.each(methods.map((method) => [nameOf(method), method] as const))("%s", (_, method) => {
  const { relation, scope, callers } = getOption(method, authz);
  const scopes = scope === "" ? [] : [scope];
  const [caller] = callers;
  const from = (who: Principal | undefined): Caller => ({
    ...(who === undefined ? {} : { principal: who }),
    ...(caller === undefined ? {} : { callingService: caller }),
  });

  if (!isOpen(method)) {
    test("refuses who brings no credential", async () => {
      expect(await call(method, undefined)).toBe("UNAUTHENTICATED");
    });
  } else {
    test("is open to anyone, without looking at a credential", async () => {
      expect(await call(method, undefined)).toBe("ok");
    });
    return;
  }

  // The declared table: members are 2, developers 3, admins 4, owners 5, operators 6.
  const least: Readonly<Record<number, number>> = { 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4 };
  const leastRole = least[relation] ?? 99;
  test.each([
    ["member", Role.MEMBER, false],
    ["developer", Role.DEVELOPER, false],
    ["admin", Role.ADMIN, false],
    ["owner", Role.OWNER, false],
    ["operator", Role.OWNER, true],
    ["member of the operator's org", Role.MEMBER, true],
  ] as const)("as %s", async (_, role, operator) => {
    const isAllowed = role >= leastRole && (relation !== Relation.OPERATOR || operator);
    expect(await call(method, from(principal(role, scopes, operator)))).toBe(isAllowed ? "ok" : "ROLE_TOO_LOW");
  });

  if (scope !== "") {
    const family = scope.split(".")[0] ?? "";
    test.each([
      [[], false],
      [["*"], true],
      [[`${family}.*`], true],
      [[`${family}x.*`], false],
      [[family], false],
      [[`${scope}x`], false],
      [["other.*", scope], true],
    ])("with the scopes %j", async (carried, isAllowed) => {
      const reason = await call(method, from(principal(Role.OWNER, carried, true)));
      expect(reason).toBe(isAllowed ? "ok" : "SCOPE_MISSING");
    });
  }

  if (isInternal(method)) {
    test("refuses services that it does not name, and who is no service", async () => {
      const others = ["gateway", "orchestrator", "tools", "capsules", "credentials"].filter(
        (name) => !callers.includes(name),
      );
      const owner = principal(Role.OWNER, ["*"], true);
      for (const callingService of others) {
        expect(await call(method, { principal: owner, callingService })).toBe("CALLER_NOT_ALLOWED");
      }
      expect(await call(method, { principal: owner })).toBe("CALLER_NOT_ALLOWED");
    });
  }

  if (leastRole > 0) {
    test("refuses a service that acts for nobody", async () => {
      expect(await call(method, { callingService: caller ?? "gateway" })).toBe("UNAUTHENTICATED");
    });

    test("refuses a claim to another org", async () => {
      const who = from(principal(Role.OWNER, ["*"], true));
      const claim = (value: string) => call(method, who, { headers: { "x-tenant-id": value } });
      expect(await claim(newId("org"))).toBe("TENANT_MISMATCH");
      expect(await claim(orgId)).toBe("ok");
    });
  }
});

test("some rows by hand, so that the matrix does not only agree with itself", async () => {
  const rows: [DescMethod, Role, readonly string[], boolean, string][] = [
    [IdentityService.method.createOrg, Role.OWNER, ["*"], false, "ROLE_TOO_LOW"],
    [IdentityService.method.createOrg, Role.OWNER, ["*"], true, "ok"],
    [IdentityService.method.setLimit, Role.DEVELOPER, ["*"], false, "ROLE_TOO_LOW"],
    [IdentityService.method.setLimit, Role.ADMIN, ["limits.read"], false, "SCOPE_MISSING"],
    [IdentityService.method.setLimit, Role.ADMIN, ["limits.write"], false, "ok"],
    [SessionService.method.sendTurn, Role.MEMBER, ["sessions.read"], false, "SCOPE_MISSING"],
    [AuthenticationService.method.authenticate, Role.OWNER, ["*"], true, "CALLER_NOT_ALLOWED"],
  ];
  for (const [method, role, scopes, operator, reason] of rows) {
    expect(await call(method, { principal: principal(role, scopes, operator) })).toBe(reason);
  }
});

test("a method that declares nothing is refused to everybody, until its service is named as open", async () => {
  const owner = { principal: principal(Role.OWNER, ["*"], true), callingService: "gateway" };
  expect(await call(InteropService.method.unary, owner)).toBe("CALLER_NOT_ALLOWED");
  expect(accessRules().of(InteropService.method.unary)).toEqual({ kind: "refused" });
  expect(accessRules({ openServices: [InteropService.typeName] }).of(InteropService.method.unary)).toEqual({
    kind: "open",
  });
});
