import { createCadre } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { startJwtIssuer, type TestJwtIssuer } from "../support/jwt-issuer.ts";
import { runProgram } from "../support/run-program.ts";

// An admin ends one token of a user, from the command line and over REST.

let issuer: TestJwtIssuer;
let server: RunningCadre;
let orgId: string;

beforeAll(async () => {
  issuer = await startJwtIssuer();
  server = await startCadre({ settings: { CADRE_JWT_ISSUERS: issuer.setting } });
  orgId = (await createCadre({ baseUrl: server.url, apiKey: server.adminKey }).principal()).principal.orgId;
});
afterAll(async () => {
  await server.dispose();
  issuer.stop();
});

async function statusOf(jwt: string): Promise<number> {
  const response = await fetch(`${server.url}/v1/principal`, { headers: { authorization: `Bearer ${jwt}` } });
  await response.arrayBuffer();
  return response.status;
}

function cadre(args: readonly string[], input = "") {
  const flags = ["--url", server.url, "--api-key", server.adminKey];
  return runProgram(process.execPath, ["cli/bin/cadre.js", ...args, ...flags], { input });
}

test("cadre keys revoke-token reads the token from standard input", async () => {
  const { jwt, tokenId } = await issuer.sign(orgId);
  expect(await statusOf(jwt)).toBe(200);
  const { code, stdout, stderr } = await cadre(["keys", "revoke-token", "-"], `${jwt}\n`);
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${tokenId} of ${issuer.issuer} is revoked\n` });
  expect(stderr).toBe("");
  expect(await statusOf(jwt)).toBe(401);
});

test("cadre keys revoke-token takes issuer and id", async () => {
  const { jwt, tokenId } = await issuer.sign(orgId);
  const named = ["keys", "revoke-token", "--issuer", issuer.issuer, "--id", tokenId, "--json"];
  const { code, stdout } = await cadre(named);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ token_id: tokenId, issuer: issuer.issuer });
  expect(await statusOf(jwt)).toBe(401);
});

test.each([
  ["nothing to revoke", ["keys", "revoke-token"]],
  ["half of a name", ["keys", "revoke-token", "--id", "x"]],
  ["two tokens", ["keys", "revoke-token", "a.b.c", "--issuer", "x", "--id", "y"]],
  ["a time that is none", ["keys", "revoke-token", "--issuer", "x", "--id", "y", "--expires", "soon"]],
])("%s is wrong usage", async (_, args) => {
  expect(await cadre(args)).toMatchObject({ code: 2, stdout: "" });
});

test("POST /v1/tokens:revoke answers when the token is refused", async () => {
  const { jwt, tokenId } = await issuer.sign(orgId);
  expect(await statusOf(jwt)).toBe(200);
  const revoke = (body: object) =>
    fetch(`${server.url}/v1/tokens:revoke`, {
      method: "POST",
      headers: { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const response = await revoke({ jwt });
  expect(response.status).toBe(200);
  expect(await response.json()).toMatchObject({ issuer: issuer.issuer, token_id: tokenId });
  expect(await statusOf(jwt)).toBe(401);

  const forged = await revoke({ jwt: `${jwt}x` });
  expect(forged.status).toBe(400);
  expect(await forged.json()).toMatchObject({
    error: { reason: "INVALID_ARGUMENT", message: "jwt: is no token of your org" },
  });
  expect((await revoke({})).status).toBe(400);
});
