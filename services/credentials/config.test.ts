import { expect, test } from "vitest";
import { ConfigurationError, parseSettings } from "../runtime/config/settings.ts";
import { credentialsSettings } from "./config.ts";

const parse = (text: string) => parseSettings(credentialsSettings, { CADRE_JWT_ISSUERS: text }).CADRE_JWT_ISSUERS;
const issuer = { issuer: "https://login.test", audience: "cadre", jwks_url: "https://login.test/jwks" };

test("no issuer is trusted unless it is named", () => {
  expect(parseSettings(credentialsSettings, {}).CADRE_JWT_ISSUERS).toEqual([]);
});

test("an issuer has safe defaults", () => {
  expect(parse(JSON.stringify([issuer]))).toMatchObject([
    { algorithms: ["EdDSA", "ES256", "RS256"], typ: "at+jwt", org_claim: "org_id", role_claim: "role" },
  ]);
});

test.each([
  ["text that is no JSON", "{"],
  ["an object", JSON.stringify(issuer)],
  ["keys over plain http", JSON.stringify([{ ...issuer, jwks_url: "http://login.test/jwks" }])],
  ["keys from a file", JSON.stringify([{ ...issuer, jwks_url: "file:///etc/jwks" }])],
  ["a symmetric algorithm", JSON.stringify([{ ...issuer, algorithms: ["HS256"] }])],
  ["no algorithm", JSON.stringify([{ ...issuer, algorithms: [] }])],
  ["a misspelt field", JSON.stringify([{ ...issuer, org: "org_id" }])],
  ["an empty list of orgs", JSON.stringify([{ ...issuer, orgs: [] }])],
  ["no audience", JSON.stringify([{ ...issuer, audience: undefined }])],
  ["an issuer twice", JSON.stringify([issuer, issuer])],
])("%s is refused", (_, text) => {
  expect(() => parse(text)).toThrow(ConfigurationError);
});

test("keys over http are taken from this machine", () => {
  expect(parse(JSON.stringify([{ ...issuer, jwks_url: "http://127.0.0.1:9/jwks" }]))).toHaveLength(1);
});
