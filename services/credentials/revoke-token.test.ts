import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AuditService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { AuthenticationService, IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import type { JWTPayload } from "jose";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CredentialsWorld, startCredentialsWorld } from "../../test/support/credentials-world.ts";
import { reasonOf } from "../../test/support/failure.ts";
import { startJwtIssuer, type TestJwtIssuer } from "../../test/support/jwt-issuer.ts";
import { createPrincipalCheck } from "../runtime/identity/principal-check.ts";
import { newId } from "../runtime/ids/id.ts";

const issuer = "https://login.test";
const hourS = 3_600;

let jwtIssuer: TestJwtIssuer;
let world: CredentialsWorld;
let org: { id: string; ownerKey: string };
let other: { id: string; ownerKey: string };

beforeAll(async () => {
  jwtIssuer = await startJwtIssuer(issuer);
  const [entry] = JSON.parse(jwtIssuer.setting);
  const bound = { ...entry, issuer: "https://bound.test", orgs: [newId("org")] };
  world = await startCredentialsWorld({ settings: { CADRE_JWT_ISSUERS: JSON.stringify([entry, bound]) } });
  const identity = world.client(IdentityService, world.adminKey);
  const create = async (name: string) => {
    const made = await identity.createOrg({ name });
    return { id: made.org?.orgId ?? "", ownerKey: made.secret };
  };
  org = await create("one");
  other = await create("two");
  for (const { ownerKey } of [org, other]) {
    for (const name of ["requests_per_second", "request_burst"]) {
      await world.client(IdentityService, ownerKey).setLimit({ name, value: 100_000n });
    }
  }
});
afterAll(async () => {
  await world.stop();
  jwtIssuer.stop();
});

const nowS = (): number => Math.floor(Date.now() / 1_000);

const makeToken = (claims: JWTPayload = {}) => jwtIssuer.sign(org.id, { scope: "limits.read", ...claims });

const tokens = (key: string) => world.client(TokenService, key);
const use = (jwt: string): Promise<string> => reasonOf(world.client(IdentityService, jwt).getPrincipal({}));
const rows = (tokenId: string) =>
  world.sql<{ org_id: string }>("select org_id from credentials.revoked_token where token_id = $1", [tokenId]);

test("a revoked JWT is refused at once everywhere, 100 times, and its user's others are not", async () => {
  const still = await makeToken();
  let allowed = 0;
  for (let round = 0; round < 100; round++) {
    const { jwt, tokenId } = await makeToken();
    // Used first, so that the edge remembers it.
    expect(await use(jwt)).toBe("ok");
    const revoked = await tokens(org.ownerKey).revokeToken({
      token: round % 2 === 0 ? { case: "jwt", value: jwt } : { case: "id", value: { issuer, tokenId } },
    });
    expect(revoked).toMatchObject({ issuer, tokenId });
    if ((await use(jwt)) === "ok") allowed += 1;
  }
  expect(allowed).toBe(0);
  expect(await use(still.jwt)).toBe("ok");
}, 60_000);

test("what runs for a revoked JWT may not go on, what runs for its user's other ones may", async () => {
  const [revoked, kept] = [await makeToken(), await makeToken()];
  const principalOf = async (jwt: string) => {
    const { principal } = await world.client(IdentityService, jwt).getPrincipal({});
    if (principal === undefined) throw new Error("nobody");
    return principal;
  };
  const [ends, goesOn] = [await principalOf(revoked.jwt), await principalOf(kept.jwt)];
  const authentication = world.platform.client("orchestrator", "credentials", AuthenticationService);
  const check = createPrincipalCheck({ authentication, changes: world.changes });
  expect((await check.assertMayAct(ends)).subject).toBe(`${issuer}|ada`);
  await check.assertMayAct(goesOn);
  await tokens(org.ownerKey).revokeToken({ token: { case: "jwt", value: revoked.jwt } });
  await expect(check.assertMayAct(ends)).rejects.toMatchObject({ reason: "PRINCIPAL_REVOKED" });
  await check.assertMayAct(goesOn);
});

test("is on record once, with who did it and which token, and without the token", async () => {
  const { jwt, tokenId } = await makeToken();
  await tokens(org.ownerKey).revokeToken({ token: { case: "jwt", value: jwt } });
  await tokens(org.ownerKey).revokeToken({ token: { case: "jwt", value: jwt } });
  const { events } = await world.client(AuditService, org.ownerKey).listAuditEvents({ type: "token.revoked" });
  const own = events.filter(({ resource }) => resource.endsWith(tokenId));
  expect(own).toMatchObject([
    {
      orgId: org.id,
      action: "cadre.credentials.v1.TokenService/RevokeToken",
      resource: `token/${issuer}|${tokenId}`,
    },
  ]);
  expect(own[0]?.actor).toMatch(/^key_/);
  expect(world.lines.join("\n")).not.toContain(jwt);
  // Its use afterwards is refused with the true reason on record.
  await use(jwt);
  const refused = await world.sql<{ reason: string; actor: string }>(
    "select reason, actor from credentials.audit_entry where type = 'auth.failed' and actor = $1 order by event_id desc limit 1",
    [`${issuer}|ada`],
  );
  expect(refused).toEqual([{ reason: "REVOKED", actor: `${issuer}|ada` }]);
});

test.each([
  ["an ended token", async () => (await makeToken({ iat: nowS() - hourS, exp: nowS() - 600 })).jwt, "ok"],
  ["another org's token", async () => (await makeToken({ org_id: other.id })).jwt, "INVALID_ARGUMENT"],
  ["a forged token", async () => (await makeToken()).jwt.replace(/.{20}$/, "A".repeat(20)), "INVALID_ARGUMENT"],
  ["a text", async () => "secret", "INVALID_ARGUMENT"],
])("revoking %s", async (_, make, reason) => {
  const jwt = await make();
  const thrown = await tokens(org.ownerKey)
    .revokeToken({ token: { case: "jwt", value: jwt } })
    .then(
      () => undefined,
      (error: unknown) => error,
    );
  expect(thrown === undefined ? "ok" : await reasonOf(Promise.reject(thrown))).toBe(reason);
  expect(String(thrown)).not.toContain(jwt);
});

test("an org ends tokens of its own only: the same issuer and id of another org go on", async () => {
  const { jwt, tokenId } = await makeToken({ org_id: other.id });
  expect(await use(jwt)).toBe("ok");
  await tokens(org.ownerKey).revokeToken({ token: { case: "id", value: { issuer, tokenId } } });
  expect(await use(jwt)).toBe("ok");
  await tokens(other.ownerKey).revokeToken({ token: { case: "id", value: { issuer, tokenId } } });
  expect(await use(jwt)).toBe("UNAUTHENTICATED");
});

test("issuers that are not configured, or not for the org, are refused by name", async () => {
  for (const name of ["https://evil.test", "https://bound.test"]) {
    const revoke = tokens(org.ownerKey).revokeToken({ token: { case: "id", value: { issuer: name, tokenId: "t" } } });
    expect(await reasonOf(revoke)).toBe("INVALID_ARGUMENT");
  }
});

test("is remembered for as long as the token and what it started can live, and then forgotten", async () => {
  const { jwt, tokenId } = await makeToken();
  const { rememberedUntil } = await tokens(org.ownerKey).revokeToken({ token: { case: "jwt", value: jwt } });
  const hours = ((rememberedUntil === undefined ? 0 : timestampDate(rememberedUntil).getTime()) - Date.now()) / 3.6e6;
  expect(hours).toBeGreaterThan(24.2);
  expect(hours).toBeLessThan(24.5);
  // A shorter time that is told later takes nothing back.
  const again = await tokens(org.ownerKey).revokeToken({
    token: { case: "id", value: { issuer, tokenId, expiresAt: timestampFromMs(Date.now()) } },
  });
  expect(again.rememberedUntil).toEqual(rememberedUntil);
  await world.sql(
    "update credentials.revoked_token set remembered_until = now() - interval '1 s' where token_id = $1",
    [tokenId],
  );
  expect(await rows(tokenId)).toHaveLength(1);
  await tokens(org.ownerKey).revokeToken({ token: { case: "jwt", value: (await makeToken()).jwt } });
  expect(await rows(tokenId)).toHaveLength(0);
});

test("a token that would outlive every revocation is not accepted", async () => {
  expect(await use((await makeToken({ exp: nowS() + 401 * 24 * hourS })).jwt)).toBe("UNAUTHENTICATED");
  expect(await use((await makeToken({ exp: nowS() + 399 * 24 * hourS })).jwt)).toBe("ok");
});

test("how many an org may revoke is a limit of its own", async () => {
  await world.client(IdentityService, other.ownerKey).setLimit({ name: "revoked_tokens", value: 2n });
  const revoke = async () =>
    tokens(other.ownerKey).revokeToken({ token: { case: "jwt", value: (await makeToken({ org_id: other.id })).jwt } });
  expect([await reasonOf(revoke()), await reasonOf(revoke())]).toContain("LIMIT_EXCEEDED");
});

test("members may not, nor keys without the scope", async () => {
  const { jwt } = await makeToken({ role: "developer", scope: "*" });
  expect(await reasonOf(tokens(jwt).revokeToken({ token: { case: "jwt", value: jwt } }))).toBe("ROLE_TOO_LOW");
  const admin = await makeToken({ scope: "keys.read" });
  expect(await reasonOf(tokens(admin.jwt).revokeToken({ token: { case: "jwt", value: jwt } }))).toBe("SCOPE_MISSING");
});
