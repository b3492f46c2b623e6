import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { newId } from "../../services/runtime/ids/id.ts";

/** An issuer of JWTs with its keys on an address of this machine. */
export interface TestJwtIssuer {
  readonly issuer: string;
  /** The value of `CADRE_JWT_ISSUERS` that trusts it. */
  readonly setting: string;
  /** A token for 15 minutes; claims of an `admin` with every scope unless said. */
  sign(orgId: string, claims?: JWTPayload): Promise<{ readonly jwt: string; readonly tokenId: string }>;
  stop(): void;
}

/** Starts it on a free port. */
export async function startJwtIssuer(issuer = "https://login.test"): Promise<TestJwtIssuer> {
  const { publicKey, privateKey } = await generateKeyPair("Ed25519", { extractable: true });
  const keys = [{ ...(await exportJWK(publicKey)), kid: "k" }];
  const server = createServer((_, response) => {
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const setting = JSON.stringify([{ issuer, audience: "cadre", jwks_url: `http://127.0.0.1:${port}/jwks` }]);
  return {
    issuer,
    setting,
    async sign(orgId, claims = {}) {
      const nowS = Math.floor(Date.now() / 1_000);
      const payload = {
        iss: issuer,
        aud: "cadre",
        sub: "ada",
        jti: newId("evt"),
        iat: nowS - 1,
        exp: nowS + 900,
        org_id: orgId,
        role: "admin",
        scope: "*",
        ...claims,
      };
      const header = { alg: "EdDSA", typ: "at+jwt", kid: "k" };
      return { jwt: await new SignJWT(payload).setProtectedHeader(header).sign(privateKey), tokenId: payload.jti };
    },
    stop: () => server.close(),
  };
}
