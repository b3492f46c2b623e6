import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clone, create, equals } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { SignJWT } from "jose";
import { afterAll, describe, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { newId } from "../ids/id.ts";
import type { IncomingCall } from "./authenticator.ts";
import { createCertificateTrust, loadCertificateIdentity } from "./certificate-identity.ts";
import { ensureDevCertificates } from "./dev-authority.ts";
import { encodePrincipal, freezePrincipal } from "./principal.ts";
import { Refusal } from "./refusal.ts";
import { createLocalAuthority, type KeyProof, type ServiceIdentity } from "./service-identity.ts";
import {
  createServiceTokenSigner,
  createServiceTokenVerifier,
  isClockRefusal,
  serviceTokenHeader,
} from "./service-token.ts";
import { createServiceTokenAuthenticator } from "./service-token-authenticator.ts";

const directory = mkdtempSync(join(tmpdir(), "mesh-"));
afterAll(() => rmSync(directory, { recursive: true }));

function principal(): Principal {
  return freezePrincipal(
    create(PrincipalSchema, {
      kind: PrincipalKind.KEY,
      subject: newId("key"),
      orgId: newId("org"),
      role: Role.DEVELOPER,
      scopes: ["sessions.*"],
      tools: ["clock"],
    }),
  );
}

const call: IncomingCall = {
  source: "",
  peerIdentity: undefined,
  requestId: newId("req"),
  traceparent: "",
  signal: new AbortController().signal,
};

async function refusalOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.cause instanceof Refusal) return `${thrown.reason} ${thrown.cause.code}`;
    throw thrown;
  }
  return "allowed";
}

test("a token carries the calling service and the end user apart", async () => {
  const authority = createLocalAuthority();
  const signer = createServiceTokenSigner(authority.identity("gateway"), "tools");
  const verifier = createServiceTokenVerifier("tools", authority);
  const user = principal();
  const verified = await verifier.verify(await signer.token(user));
  expect(verified.callingService).toBe("gateway");
  expect(equals(PrincipalSchema, verified.principal ?? create(PrincipalSchema), user)).toBe(true);
  expect(Object.isFrozen(verified.principal)).toBe(true);
  expect((await verifier.verify(await signer.token(undefined))).principal).toBeUndefined();
});

test("a token is used again for the same principal, and its check is remembered", async () => {
  const authority = createLocalAuthority();
  const signer = createServiceTokenSigner(authority.identity("gateway"), "tools");
  const verifier = createServiceTokenVerifier("tools", authority);
  const user = principal();
  const token = await signer.token(user);
  expect(signer.token(user)).toBe(token);
  expect(signer.token(clone(PrincipalSchema, user))).toBe(token);
  expect(await signer.token(principal())).not.toBe(token);
  const first = await verifier.verify(token);
  expect(verifier.verify(token)).toBe(first);
});

test("an unfrozen principal that changes gets another token", async () => {
  const signer = createServiceTokenSigner(createLocalAuthority().identity("gateway"), "tools");
  const user = clone(PrincipalSchema, principal());
  const before = await signer.token(user);
  user.scopes = ["*"];
  expect(await signer.token(user)).not.toBe(before);
});

test("a token is renewed a minute before its end, and ends after five", async () => {
  const authority = createLocalAuthority();
  let now = 1_800_000_000_000;
  const signer = createServiceTokenSigner(authority.identity("gateway"), "tools", () => now);
  const verifier = createServiceTokenVerifier("tools", authority, () => now);
  const user = principal();
  const token = await signer.token(user);
  await verifier.verify(token);
  now += 239_999;
  expect(await signer.token(user)).toBe(token);
  now += 1;
  expect(await signer.token(user)).not.toBe(token);
  now += 60_000 + 59_000;
  await verifier.verify(token); // within the skew
  now += 2_000;
  expect(await refusalOf(() => verifier.verify(token))).toBe("UNAVAILABLE EXPIRED");
});

test("a token of a clock that was fast is not used any more once that is right", async () => {
  const authority = createLocalAuthority();
  let now = Date.now() + 3_600_000;
  const signer = createServiceTokenSigner(authority.identity("gateway"), "tools", () => now);
  const verifier = createServiceTokenVerifier("tools", authority);
  const user = principal();
  expect(await refusalOf(async () => verifier.verify(await signer.token(user)))).toBe("UNAVAILABLE NOT_YET_VALID");
  now = Date.now();
  expect(await refusalOf(async () => verifier.verify(await signer.token(user)))).toBe("allowed");
});

describe("a token that is not what it seems", () => {
  const authority = createLocalAuthority();
  const gateway = authority.identity("gateway");
  const verifier = createServiceTokenVerifier("tools", authority);
  const stranger = generateKeyPairSync("ed25519").privateKey;
  const seconds = Math.floor(Date.now() / 1_000);
  const good = { iss: "gateway", sub: "gateway", aud: "tools", jti: "1", iat: seconds, exp: seconds + 300 };
  const sign = (claims: Record<string, unknown>, header: Record<string, unknown> = {}, identity = gateway) =>
    new SignJWT(claims)
      .setProtectedHeader({ alg: "EdDSA", typ: "svc+jwt", kid: identity.name, ...header })
      .sign(identity.current().privateKey);

  test("the good one of this table is allowed", async () => {
    expect(await refusalOf(async () => verifier.verify(await sign(good)))).toBe("allowed");
  });

  const table: [string, () => Promise<string>, string][] = [
    ["of another audience", () => sign({ ...good, aud: "credentials" }), "WRONG_AUDIENCE"],
    ["of another type", () => sign(good, { typ: "at+jwt" }), "WRONG_TYPE"],
    ["without a type", () => sign(good, { typ: undefined }), "WRONG_TYPE"],
    ["of a service that signs as another", () => sign({ ...good, iss: "orchestrator" }), "WRONG_ISSUER"],
    ["with another subject", () => sign({ ...good, sub: "orchestrator" }), "CLAIM_INVALID"],
    ["without an end", () => sign({ ...good, exp: undefined }), "CLAIM_MISSING"],
    ["without an id", () => sign({ ...good, jti: undefined }), "CLAIM_MISSING"],
    ["of an unknown key", () => sign(good, { kid: "federation" }), "UNKNOWN_KEY"],
    ["whose key is another service's", () => sign(good, { kid: "gateway" }, authority.identity("tools")), "SIGNATURE"],
    [
      "of a stranger",
      () => new SignJWT(good).setProtectedHeader({ alg: "EdDSA", typ: "svc+jwt", kid: "gateway" }).sign(stranger),
      "SIGNATURE",
    ],
    ["with a principal that is none", () => sign({ ...good, principal: "!!!!" }), "CLAIM_INVALID"],
    ["with a principal of another form", () => sign({ ...good, principal: { role: "ROLE_OWNER" } }), "CLAIM_INVALID"],
    ["that is no JWT", () => Promise.resolve("a.b.c"), "MALFORMED"],
    ["of 64 KiB", () => Promise.resolve("a".repeat(65_536)), "TOO_LONG"],
    ["that is empty", () => Promise.resolve(""), "NO_CREDENTIAL"],
  ];
  test.each(table)("%s is refused", async (_, make, code) => {
    const token = await make();
    expect(await refusalOf(() => verifier.verify(token))).toBe(`UNAUTHENTICATED ${code}`);
  });

  test.each([
    ["is valid for a year", { iat: seconds - 400, exp: seconds + 3e7 }, "EXPIRED"],
    ["is of a slow clock", { iat: seconds - 600, exp: seconds - 300 }, "EXPIRED"],
    ["is of a fast clock", { iat: seconds + 600, exp: seconds + 900 }, "NOT_YET_VALID"],
  ])("one that %s is refused until the clocks agree", async (_, claims, code) => {
    const token = await sign({ ...good, ...claims });
    expect(await refusalOf(() => verifier.verify(token))).toBe(`UNAVAILABLE ${code}`);
    await expect(async () => verifier.verify(token)).rejects.toThrow("the clocks of gateway and tools differ");
    expect(await Promise.resolve(token).then(verifier.verify).catch(isClockRefusal)).toBe(true);
    // The control: times of one that is forged say nothing.
    const forged = `${token.slice(0, -4)}AAAA`;
    expect(await refusalOf(() => verifier.verify(forged))).toBe("UNAUTHENTICATED SIGNATURE");
  });

  test("its signature is checked though a true token has the same id", async () => {
    const token = await sign({ ...good, principal: encodePrincipal(principal()) });
    await verifier.verify(token);
    const [header, , signature] = token.split(".");
    const forged = Buffer.from(JSON.stringify({ ...good, principal: encodePrincipal(principal()) })).toString(
      "base64url",
    );
    expect(await refusalOf(() => verifier.verify(`${header}.${forged}.${signature}`))).toBe(
      "UNAUTHENTICATED SIGNATURE",
    );
  });
});

describe("identities by certificate", () => {
  const services = ["gateway", "tools"] as const;

  test("the development authority proves a service to another process, and is made once", async () => {
    const files = await ensureDevCertificates({ directory, services });
    const gatewayFiles = files.get("gateway");
    if (gatewayFiles === undefined) throw new Error("no files of the gateway");
    const before = readFileSync(gatewayFiles.certificate, "utf8");
    await ensureDevCertificates({ directory, services });
    expect(readFileSync(gatewayFiles.certificate, "utf8")).toBe(before);
    expect(statSync(gatewayFiles.key).mode & 0o777).toBe(0o600);
    expect(new X509Certificate(before).subjectAltName).toContain("URI:spiffe://cadre/gateway");

    const trust = createCertificateTrust(readFileSync(gatewayFiles.authority, "utf8"));
    const signer = createServiceTokenSigner(loadCertificateIdentity("gateway", gatewayFiles), "tools");
    const token = await signer.token(principal());
    expect(token.length).toBeLessThan(4_096);
    const verifier = createServiceTokenVerifier("tools", trust);
    expect((await verifier.verify(token)).callingService).toBe("gateway");

    const authenticator = createServiceTokenAuthenticator(verifier);
    const header = new Headers({ [serviceTokenHeader]: token });
    const ask = (peerIdentity: string) => async () => authenticator.authenticate(header, { ...call, peerIdentity });
    expect(await refusalOf(ask("gateway"))).toBe("allowed");
    expect(await refusalOf(ask("tools"))).toBe("CALLER_NOT_ALLOWED WRONG_SERVICE");
  });

  test("certificates of 24 hours are renewed while they are good, and used without a restart", async () => {
    let now = Date.now();
    let monotonic = 0;
    const files = await ensureDevCertificates({ directory, services, now: () => now });
    const gatewayFiles = files.get("gateway");
    if (gatewayFiles === undefined) throw new Error("no files of the gateway");
    const identity = loadCertificateIdentity("gateway", gatewayFiles, () => monotonic);
    const before = identity.current();
    now += 9 * 3_600_000;
    await ensureDevCertificates({ directory, services, now: () => now });
    expect(identity.current()).toBe(before);
    monotonic += 10_000;
    const after = identity.current();
    expect(after).not.toBe(before);
    const trust = createCertificateTrust(readFileSync(gatewayFiles.authority, "utf8"), () => now);
    expect(trust.resolve(before.proof)?.service).toBe("gateway");
    now += 16 * 3_600_000;
    expect(trust.resolve(before.proof)).toBeUndefined();
    expect(trust.resolve(after.proof)).toBeDefined();
  });

  test("what another authority issued is not trusted, nor a chain that ends at a service", async () => {
    const other = mkdtempSync(join(tmpdir(), "mesh-"));
    const [ours, theirs] = await Promise.all([
      ensureDevCertificates({ directory, services }),
      ensureDevCertificates({ directory: other, services }),
    ]);
    const proofOf = (files: typeof ours, name: "gateway" | "tools"): KeyProof => {
      const found = files.get(name);
      if (found === undefined) throw new Error("no files");
      const identity: ServiceIdentity = loadCertificateIdentity(name, found);
      return identity.current().proof;
    };
    const trust = createCertificateTrust(readFileSync(join(directory, "authority.pem"), "utf8"));
    expect(trust.resolve(proofOf(theirs, "gateway"))).toBeUndefined();
    expect(
      trust.resolve({ x5c: [...(proofOf(theirs, "gateway").x5c ?? []), ...(proofOf(ours, "tools").x5c ?? [])] }),
    ).toBeUndefined();
    expect(trust.resolve({ x5c: ["bm90IGEgY2VydGlmaWNhdGU="] })).toBeUndefined();
    expect(trust.resolve({ kid: "gateway" })).toBeUndefined();
    expect(trust.resolve({ x5c: [] })).toBeUndefined();
    rmSync(other, { recursive: true });
  });
});
