import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AuthenticationService, IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CredentialsWorld, startCredentialsWorld } from "../../test/support/credentials-world.ts";
import { reasonOf } from "../../test/support/failure.ts";
import { parseSettings } from "../runtime/config/settings.ts";
import { createPrincipalCheck } from "../runtime/identity/principal-check.ts";
import { credentialsSettings } from "./config.ts";
import { startCredentials } from "./main.ts";

/**
 * Issues a key, uses it until it is remembered, revokes it, and uses it once
 * more at once; ten of that at a time. How many were still allowed?
 */
async function countAllowedAfterRevocation(world: CredentialsWorld, rounds: number) {
  const admin = world.client(ApiKeyService, world.adminKey);
  const revokeMs: number[] = [];
  let allowed = 0;
  let begun = 0;
  async function run(): Promise<void> {
    while (begun < rounds) {
      begun += 1;
      const { key, secret } = await admin.issueKey({ name: "round", scopes: ["keys.read"] });
      const client = world.client(IdentityService, secret);
      await client.getPrincipal({});
      const start = performance.now();
      await admin.revokeKey({ keyId: key?.keyId ?? "" });
      revokeMs.push(performance.now() - start);
      if ((await reasonOf(client.getPrincipal({}))) === "ok") allowed += 1;
    }
  }
  await Promise.all(Array.from({ length: 10 }, run));
  return { allowed, rounds: revokeMs.length, quickestMs: Math.min(...revokeMs) };
}

const raised = async (world: CredentialsWorld): Promise<void> => {
  const identity = world.client(IdentityService, world.adminKey);
  for (const name of ["requests_per_second", "request_burst"]) await identity.setLimit({ name, value: 100_000n });
};

describe("a revocation that was answered", () => {
  let world: CredentialsWorld;
  beforeAll(async () => {
    world = await startCredentialsWorld();
    await raised(world);
  });
  afterAll(() => world.stop());

  test("holds: revoked and then called, 1,000 times, none is allowed", async () => {
    const { allowed, rounds, quickestMs } = await countAllowedAfterRevocation(world, 1_000);
    expect(rounds).toBe(1_000);
    expect(allowed).toBe(0);
    // It waits for the watchers to acknowledge, not for their time to pass.
    expect(quickestMs).toBeLessThan(900);
  }, 180_000);

  test("holds for many callers at once that share the question", async () => {
    const admin = world.client(ApiKeyService, world.adminKey);
    const { key, secret } = await admin.issueKey({ name: "shared", scopes: ["keys.read"] });
    const client = world.client(IdentityService, secret);
    let revoked = false;
    let allowedAfter = 0;
    const caller = async (): Promise<void> => {
      for (let reason = "ok"; reason === "ok"; ) {
        const beganAfter = revoked;
        reason = await reasonOf(client.getPrincipal({}));
        if (beganAfter && reason === "ok") allowedAfter += 1;
      }
    };
    const callers = Array.from({ length: 20 }, caller);
    await admin.revokeKey({ keyId: key?.keyId ?? "" });
    revoked = true;
    await Promise.all(callers);
    expect(allowedAfter).toBe(0);
  });

  test("ends what runs: the principal may not act any more", async () => {
    const admin = world.client(ApiKeyService, world.adminKey);
    const { key, secret } = await admin.issueKey({ name: "run", scopes: ["sessions.write"] });
    const { principal } = await world.client(IdentityService, secret).getPrincipal({});
    if (principal === undefined) throw new Error("no principal was answered");
    const check = createPrincipalCheck({
      authentication: world.platform.client("orchestrator", "credentials", AuthenticationService),
      changes: world.changes,
    });
    expect((await check.assertMayAct(principal)).subject).toBe(principal.subject);
    await admin.revokeKey({ keyId: key?.keyId ?? "" });
    await expect(check.assertMayAct(principal)).rejects.toMatchObject({ reason: "PRINCIPAL_REVOKED" });
  });

  test("holds though a watcher no longer hears anything, after its time has passed", async () => {
    const watcher = world.platform.client("tools", "credentials", AuthenticationService);
    const stream = watcher.watchChanges({ watcherId: "deaf" })[Symbol.asyncIterator]();
    const first = await stream.next();
    if (first.done === true) throw new Error("the stream ended");
    await expect
      .poll(
        async () =>
          (await watcher.acknowledgeChanges({ watcherId: "deaf", revision: first.value.revision })).freshForMs,
      )
      .toBeGreaterThan(0);
    const admin = world.client(ApiKeyService, world.adminKey);
    const { key } = await admin.issueKey({ name: "deaf", scopes: ["keys.read"] });
    const start = performance.now();
    const { freshForMs } = await watcher.acknowledgeChanges({ watcherId: "deaf", revision: first.value.revision });
    await admin.revokeKey({ keyId: key?.keyId ?? "" });
    const waitedMs = performance.now() - start;
    expect(waitedMs).toBeGreaterThanOrEqual(freshForMs);
    await stream.return?.(undefined);
  });

  test("holds for the watchers of another process: it waits as long as these may be unaware", async () => {
    await world.sql("insert into credentials.replica (process_id) values ('another')");
    const admin = world.client(ApiKeyService, world.adminKey);
    const { key } = await admin.issueKey({ name: "other", scopes: ["keys.read"] });
    const start = performance.now();
    await admin.revokeKey({ keyId: key?.keyId ?? "" });
    expect(performance.now() - start).toBeGreaterThanOrEqual(1_000);
    await world.sql("delete from credentials.replica where process_id = 'another'");
  });

  test("holds at another replica, whose watchers the one that revokes does not know", async () => {
    const other = await startCredentialsWorld({ replicaOf: world });
    const admin = world.client(ApiKeyService, world.adminKey);
    let allowed = 0;
    for (let round = 0; round < 5; round++) {
      const { key, secret } = await admin.issueKey({ name: "replica", scopes: ["keys.read"] });
      const client = other.client(IdentityService, secret);
      await client.getPrincipal({});
      await admin.revokeKey({ keyId: key?.keyId ?? "" });
      if ((await reasonOf(client.getPrincipal({}))) === "ok") allowed += 1;
    }
    expect(allowed).toBe(0);
    // It heard of them by notification, long before its time was up.
    expect(other.changes.revision).toBe(world.changes.revision);
    await other.stop();
  });

  test("a user's credential is of no use at a service's own port", async () => {
    const direct = world.platform.client("gateway", "credentials", IdentityService);
    const headers = { authorization: `Bearer ${world.adminKey}` };
    expect(await reasonOf(direct.getPrincipal({}, { headers }))).toBe("UNAUTHENTICATED");
  });

  test("a limit that was set is used at once", async () => {
    const identity = world.client(IdentityService, world.adminKey);
    await identity.setLimit({ name: "request_burst", value: 1n });
    await identity.setLimit({ name: "requests_per_second", value: 1n }).catch(() => {}); // refused by the first
    const reasons = [await reasonOf(identity.listLimits({})), await reasonOf(identity.listLimits({}))];
    expect(reasons).toContain("RATE_LIMITED");
  });
});

test("while credentials is gone nothing is decided; when it is back, calls are answered again", async () => {
  const world = await startCredentialsWorld();
  const client = world.client(IdentityService, world.adminKey);
  await client.getPrincipal({});
  await world.credentials.stop(0);
  const reasons = new Set<string>();
  for (let index = 0; index < 75; index++) reasons.add(await reasonOf(client.getPrincipal({})));
  expect([...reasons]).toEqual(["UNAVAILABLE"]);
  const restarted = await startCredentials(world.platform, parseSettings(credentialsSettings, {}));
  expect(restarted.firstKey).toBeUndefined();
  await world.changes.whenFresh();
  expect(await reasonOf(client.getPrincipal({}))).toBe("ok");
  await restarted.stop(0);
  await world.stop();
});

test("without the feed's invalidation a revoked key is still allowed: the protection is what protects", async () => {
  const world = await startCredentialsWorld({
    feed: (feed) => ({ ...feed, isFresh: () => true, revision: 0n, listen: () => () => {} }),
  });
  const { allowed } = await countAllowedAfterRevocation(world, 50);
  expect(allowed).toBeGreaterThanOrEqual(1);
  await world.stop();
});
