import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AuthenticationService, IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CredentialsWorld, startCredentialsWorld } from "../../test/support/credentials-world.ts";
import { reasonOf } from "../../test/support/failure.ts";
import { createLocalAuthority } from "../runtime/identity/service-identity.ts";
import { createServiceTokenSigner } from "../runtime/identity/service-token.ts";
import { newId } from "../runtime/ids/id.ts";

const issuer = "https://login.test";
const audience = "cadre";

const [ed, ec, rsa, stranger] = await Promise.all([
  generateKeyPair("Ed25519", { extractable: true }),
  generateKeyPair("ES256", { extractable: true }),
  generateKeyPair("RS256", { extractable: true }),
  generateKeyPair("Ed25519", { extractable: true }),
]);

let keyServer: Server;
let world: CredentialsWorld;
let orgId: string;
let otherOrgId: string;

beforeAll(async () => {
  const keys = await Promise.all(
    [ed, ec, rsa].map(async ({ publicKey }, index) => ({ ...(await exportJWK(publicKey)), kid: `k${index}` })),
  );
  keyServer = createServer((_, response) => {
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys }));
  });
  await new Promise<void>((resolve) => keyServer.listen(0, "127.0.0.1", resolve));
  const { port } = keyServer.address() as AddressInfo;
  const entry = { audience, jwks_url: `http://127.0.0.1:${port}/jwks` };
  const unreachable = { audience, jwks_url: "http://127.0.0.1:1/jwks" };
  // The orgs do not exist before the world does, so the bound issuer names one that never will.
  world = await startCredentialsWorld({
    settings: {
      CADRE_JWT_ISSUERS: JSON.stringify([
        { ...entry, issuer },
        { ...entry, issuer: "https://bound.test", orgs: [newId("org")] },
        { ...entry, issuer: "https://ec-only.test", algorithms: ["ES256"] },
        { ...unreachable, issuer: "https://down.test" },
      ]),
    },
  });
  const identity = world.client(IdentityService, world.adminKey);
  orgId = (await identity.createOrg({ name: "one" })).org?.orgId ?? "";
  otherOrgId = (await identity.createOrg({ name: "two" })).org?.orgId ?? "";
});
afterAll(async () => {
  await world.stop();
  keyServer.close();
});

const now = (): number => Math.floor(Date.now() / 1_000);
const claims = (): JWTPayload => ({
  iss: issuer,
  aud: audience,
  sub: "ada",
  jti: newId("evt"),
  iat: now(),
  exp: now() + 900,
  org_id: orgId,
  role: "admin",
  scope: "limits.read limits.write openid",
});
const sign = (payload: JWTPayload, header: Record<string, unknown> = {}, key = ed.privateKey): Promise<string> =>
  new SignJWT(payload).setProtectedHeader({ alg: "EdDSA", typ: "at+jwt", kid: "k0", ...header }).sign(key);
const base64url = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

let asked = 0;

async function refusalOf(token: string): Promise<{ reason: string; message: string; audited: string }> {
  // Of like refusals from one address in one minute only the first has a row of its own.
  asked += 1;
  const client = world.client(IdentityService, token, `192.0.2.${asked}`);
  const thrown = await client.listLimits({}).then(
    () => undefined,
    (error: unknown) => error,
  );
  const rows = await world.sql<{ reason: string }>(
    "select reason from credentials.audit_entry where type = 'auth.failed' order by event_id desc limit 1",
  );
  const reason = thrown === undefined ? "ok" : await reasonOf(Promise.reject(thrown));
  return { reason, message: String(thrown), audited: rows[0]?.reason ?? "" };
}

describe("a JWT that is allowed", () => {
  test.each([
    ["EdDSA", "k0", ed.privateKey],
    ["ES256", "k1", ec.privateKey],
    ["RS256", "k2", rsa.privateKey],
  ])("%s: stands for its user, with the scopes that are ours", async (alg, kid, key) => {
    const token = await sign(claims(), { alg, kid }, key);
    const { principal } = await world.client(IdentityService, token).getPrincipal({});
    expect(principal).toMatchObject({
      subject: `${issuer}|ada`,
      orgId,
      role: Role.ADMIN,
      scopes: ["limits.read", "limits.write"],
      operator: false,
    });
    expect(await reasonOf(world.client(IdentityService, token).listLimits({}))).toBe("ok");
  });

  test("is a member's unless it says more, and has the scopes it names", async () => {
    const { role: _, scope: __, ...rest } = claims();
    const client = world.client(IdentityService, await sign(rest));
    expect((await client.getPrincipal({})).principal).toMatchObject({ role: Role.MEMBER, scopes: [] });
    expect(await reasonOf(client.listLimits({}))).toBe("SCOPE_MISSING");
  });

  test("takes its audience and scopes from lists, too", async () => {
    const token = await sign({ ...claims(), aud: ["other", audience], scope: ["limits.*"] });
    expect(await reasonOf(world.client(IdentityService, token).listLimits({}))).toBe("ok");
  });

  test("is valid within a minute's skew", async () => {
    const token = await sign({ ...claims(), iat: now() - 900, exp: now() - 55 });
    expect(await reasonOf(world.client(IdentityService, token).listLimits({}))).toBe("ok");
  });
});

describe("a JWT that is refused", () => {
  const without = (name: string): JWTPayload =>
    Object.fromEntries(Object.entries(claims()).filter(([key]) => key !== name));
  const flip = (token: string, part: number): string => {
    const parts = token.split(".");
    const text = parts[part] ?? "";
    parts[part] = `${text.slice(0, 8)}${text[8] === "A" ? "B" : "A"}${text.slice(9)}`;
    return parts.join(".");
  };
  const table: [string, () => Promise<string> | string, string][] = [
    ["expired, a second past the skew", () => sign({ ...claims(), iat: now() - 900, exp: now() - 61 }), "EXPIRED"],
    ["not valid yet", () => sign({ ...claims(), nbf: now() + 62 }), "NOT_YET_VALID"],
    ["issued in the future", () => sign({ ...claims(), iat: now() + 62 }), "CLAIM_INVALID"],
    ["of an issuer that is not configured", () => sign({ ...claims(), iss: "https://evil.test" }), "WRONG_ISSUER"],
    ["of an issuer with a slash more", () => sign({ ...claims(), iss: `${issuer}/` }), "WRONG_ISSUER"],
    ["for another audience", () => sign({ ...claims(), aud: "other" }), "WRONG_AUDIENCE"],
    ...["exp", "iat", "aud", "sub", "jti"].map((name): [string, () => Promise<string>, string] => [
      `without ${name}`,
      () => sign(without(name)),
      "CLAIM_MISSING",
    ]),
    ["without iss", () => sign(without("iss")), "WRONG_ISSUER"],
    ["without an org", () => sign(without("org_id")), "CLAIM_INVALID"],
    ["of an org that is none", () => sign({ ...claims(), org_id: newId("org") }), "ORG_DELETED"],
    [
      "of an org that its issuer does not speak for",
      () => sign({ ...claims(), iss: "https://bound.test" }),
      "CLAIM_INVALID",
    ],
    ["with a role that is none", () => sign({ ...claims(), role: "constructor" }), "CLAIM_INVALID"],
    ["with a role that is a number", () => sign({ ...claims(), role: 4 }), "CLAIM_INVALID"],
    ["with scopes that are an object", () => sign({ ...claims(), scope: { "*": true } }), "CLAIM_INVALID"],
    ["with an unknown kid", () => sign(claims(), { kid: "k9" }), "UNKNOWN_KEY"],
    ["without a kid", () => sign(claims(), { kid: undefined }), "UNKNOWN_KEY"],
    ["signed by a stranger", () => sign(claims(), {}, stranger.privateKey), "SIGNATURE"],
    ["with a changed payload", async () => flip(await sign(claims()), 1), ""],
    ["with a changed signature", async () => flip(await sign(claims()), 2), "SIGNATURE"],
    ["an ID token", () => sign(claims(), { typ: "JWT" }), "WRONG_TYPE"],
    ["a refresh token", () => sign(claims(), { typ: "rt+jwt" }), "WRONG_TYPE"],
    ["without a type", () => sign(claims(), { typ: undefined }), "WRONG_TYPE"],
    ["unsigned", () => new UnsecuredJWT(claims()).encode(), "MALFORMED"],
    [
      "alg none with a signature",
      () => `${base64url({ alg: "none", typ: "at+jwt", kid: "k0" })}.${base64url(claims())}.AA`,
      "ALG_NOT_ALLOWED",
    ],
    [
      "HS256 with our public key as the secret",
      async () =>
        new SignJWT(claims())
          .setProtectedHeader({ alg: "HS256", typ: "at+jwt", kid: "k2" })
          .sign(new TextEncoder().encode(await exportSPKI(rsa.publicKey))),
      "ALG_NOT_ALLOWED",
    ],
    [
      "RS256 that names an Ed25519 key",
      () => sign(claims(), { alg: "RS256", kid: "k0" }, rsa.privateKey),
      "UNKNOWN_KEY",
    ],
    ["EdDSA that names an EC key", () => sign(claims(), { kid: "k1" }), "UNKNOWN_KEY"],
    [
      "of an algorithm that its issuer does not use",
      () => sign({ ...claims(), iss: "https://ec-only.test" }),
      "ALG_NOT_ALLOWED",
    ],
    [
      "with a list of algorithms",
      () => `${base64url({ alg: ["EdDSA"], typ: "at+jwt", kid: "k0" })}.${base64url(claims())}.AA`,
      "ALG_NOT_ALLOWED",
    ],
    ["with an empty signature", async () => `${(await sign(claims())).split(".").slice(0, 2).join(".")}.`, "MALFORMED"],
    ["with padding", async () => `${await sign(claims())}=`, "MALFORMED"],
    ["in the other base64 alphabet", async () => (await sign(claims())).replace(/.$/, "+"), "MALFORMED"],
    ["with a jku", () => sign(claims(), { jku: "https://evil.test/jwks" }), "HEADER_NOT_ALLOWED"],
    ["with an x5u", () => sign(claims(), { x5u: "https://evil.test/x" }), "HEADER_NOT_ALLOWED"],
    [
      "with a key of its own",
      async () => sign(claims(), { jwk: await exportJWK(stranger.publicKey) }, stranger.privateKey),
      "HEADER_NOT_ALLOWED",
    ],
    [
      "with crit",
      () => `${base64url({ alg: "EdDSA", typ: "at+jwt", kid: "k0", crit: ["exp"], exp: 1 })}.${base64url(claims())}.AA`,
      "HEADER_NOT_ALLOWED",
    ],
    ["three dots", () => "a.b.c.d", "MALFORMED"],
    ["no JSON", () => "YQ.YQ.YQ", "MALFORMED"],
    ["64 KiB", () => `${"a".repeat(65_536)}.b.c`, "TOO_LONG"],
    [
      "a service token",
      async () => createServiceTokenSigner(createLocalAuthority().identity("gateway"), "credentials").token(undefined),
      "WRONG_ISSUER",
    ],
  ];

  test("is answered with one text, and the audit log has the true reason", async () => {
    const messages = new Set<string>();
    const wrong: string[] = [];
    for (const [name, make, code] of table) {
      const token = await make();
      const { reason, message, audited } = await refusalOf(token);
      messages.add(message);
      const isRight = reason === "UNAUTHENTICATED" && (code === "" || audited === code);
      if (!isRight) wrong.push(`${name}: ${reason} ${audited}, not ${code}`);
      expect(world.lines.join("\n").includes(token) && token.length > 8).toBe(false);
    }
    expect(wrong).toEqual([]);
    expect(messages.size).toBe(1);
  }, 60_000);

  test("by an issuer whose keys cannot be had is no refusal: nothing is decided, nothing executed", async () => {
    const token = await sign({ ...claims(), iss: "https://down.test" });
    expect(await reasonOf(world.client(IdentityService, token).listLimits({}))).toBe("UNAVAILABLE");
  });

  test("of one org shows nothing of another", async () => {
    const own = world.client(IdentityService, await sign({ ...claims(), org_id: otherOrgId }));
    await own.setLimit({ name: "sessions", value: 7n });
    const { limits } = await world.client(IdentityService, await sign(claims())).listLimits({});
    expect(limits.find(({ name }) => name === "sessions")?.value).toBe(200n);
  });
});

test("a principal whose JWT has ended may go on in what runs for a day, and no longer", async () => {
  const client = world.platform.client("orchestrator", "credentials", AuthenticationService);
  const { principal } = await world.client(IdentityService, await sign(claims())).getPrincipal({});
  const ended = (hours: number) => ({
    ...principal,
    $typeName: undefined,
    expiresAt: { seconds: BigInt(now() - hours * 3_600), nanos: 0 },
  });
  expect((await client.checkPrincipal({ principal: ended(23) as never })).principal).toBeDefined();
  expect((await client.checkPrincipal({ principal: ended(25) as never })).principal).toBeUndefined();
});
