import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import {
  type AuthenticateResponse,
  AuthenticateResponseSchema,
  PrincipalKind,
  PrincipalSchema,
} from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { pino } from "pino";
import { beforeEach, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { toConnectError } from "../errors/failure.ts";
import { newId } from "../ids/id.ts";
import { makeApiKey } from "./api-key.ts";
import type { Authenticator, IncomingCall } from "./authenticator.ts";
import { createBearerAuthenticator } from "./bearer-authenticator.ts";
import type { ChangeFeed, ChangeListener } from "./change-feed.ts";
import { refused } from "./refusal.ts";

const log = pino({ level: "silent" });

/** A feed that the test moves by hand. */
class ManualFeed implements ChangeFeed {
  fresh = true;
  readonly failure = undefined;
  revision = 5n;
  readonly #listeners = new Set<ChangeListener>();

  isFresh(): boolean {
    return this.fresh;
  }

  listen(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  revoke(subject: string): void {
    this.revision += 1n;
    for (const listener of this.#listeners) listener.onRevoked?.({ subject, tokenId: "" });
  }

  whenFresh(): Promise<void> {
    return Promise.resolve();
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}

const keyId = newId("key");
function answer(revision: bigint, expiresAtMs?: number): AuthenticateResponse {
  return create(AuthenticateResponseSchema, {
    revision,
    principal: create(PrincipalSchema, {
      kind: PrincipalKind.KEY,
      subject: keyId,
      orgId: newId("org"),
      role: Role.MEMBER,
      ...(expiresAtMs === undefined ? {} : { expiresAt: timestampFromMs(expiresAtMs) }),
    }),
  });
}

let feed: ManualFeed;
let now: number;
let asked: number;
let respond: () => Promise<AuthenticateResponse>;
let authenticator: Authenticator;
beforeEach(() => {
  feed = new ManualFeed();
  now = 1_800_000_000_000;
  asked = 0;
  respond = async () => answer(feed.revision);
  authenticator = createBearerAuthenticator({
    authentication: {
      authenticate: () => {
        asked += 1;
        return respond();
      },
    },
    changes: feed,
    log,
    now: () => now,
  });
});

const key = makeApiKey("dev").text;
const call = (source = "192.0.2.1"): IncomingCall => ({
  source,
  peerIdentity: undefined,
  requestId: newId("req"),
  traceparent: "",
  signal: new AbortController().signal,
});
const authenticate = async (credential = key, source?: string) =>
  authenticator.authenticate(new Headers({ authorization: `Bearer ${credential}` }), call(source));
const reason = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (thrown: unknown) => (thrown instanceof AppError ? thrown.reason : `bug: ${String(thrown)}`),
  );

test("who was allowed is remembered, and asked for again in the background after five seconds", async () => {
  const first = await authenticate();
  expect(Object.isFrozen(first.principal)).toBe(true);
  const header = new Headers({ authorization: `bearer  ${key}` });
  expect(authenticator.authenticate(header, call())).toBe(first); // at once, without a promise
  now += 4_999;
  expect(authenticator.authenticate(header, call())).toBe(first);
  expect(asked).toBe(1);
  now += 1;
  expect(authenticator.authenticate(header, call())).toBe(first);
  expect(authenticator.authenticate(header, call())).toBe(first);
  expect(asked).toBe(2);
  await expect.poll(() => authenticator.authenticate(header, call())).not.toBe(first);
  now += 4_999;
  await authenticate();
  expect(asked).toBe(2);
});

test("what could not be confirmed holds for ten seconds in all", async () => {
  await authenticate();
  now += 9_999;
  respond = () => Promise.reject(new ConnectError("gone", Code.Unavailable));
  await authenticate();
  now += 1;
  expect(await reason(authenticate())).toBe("UNAVAILABLE");
});

test("what is refused in the background is forgotten", async () => {
  await authenticate();
  now += 5_000;
  respond = () => Promise.reject(toConnectError(refused("REFUSED", { audited: true }), ""));
  await authenticate();
  await expect.poll(() => reason(authenticate())).toBe("UNAUTHENTICATED");
});

test("nobody is remembered past the end of the credential", async () => {
  respond = async () => answer(feed.revision, now + 3_000);
  await authenticate();
  now += 3_000;
  await authenticate();
  expect(asked).toBe(2);
});

test("what was revoked is forgotten", async () => {
  await authenticate();
  feed.revoke(newId("key"));
  await authenticate();
  expect(asked).toBe(1);
  feed.revoke(keyId);
  await authenticate();
  expect(asked).toBe(2);
});

test("while the feed is not fresh no call gets an answer that was asked for before it; those who wait share the next", async () => {
  await authenticate();
  feed.fresh = false;
  await Promise.all([authenticate(), authenticate(), authenticate()]);
  expect(asked).toBe(3);
});

test("calls with the same credential at the same time ask once", async () => {
  await Promise.all([authenticate(), authenticate(), authenticate()]);
  expect(asked).toBe(1);
});

test("an answer from before a revocation that was applied since is asked for again", async () => {
  const stale = answer(feed.revision);
  let release: (response: AuthenticateResponse) => void = () => {};
  respond = () =>
    new Promise((resolve) => {
      release = resolve;
    });
  const first = authenticate();
  feed.revoke(keyId);
  const second = authenticate(); // joins the question; began after the revocation
  respond = async () => {
    throw toConnectError(refused("REVOKED"), newId("req"));
  };
  release(stale);
  expect(await reason(first)).toBe("UNAUTHENTICATED");
  expect(await reason(second)).toBe("UNAUTHENTICATED");
  expect(asked).toBe(2);
});

test("answers that stay behind end in UNAVAILABLE, after a few", async () => {
  respond = async () => answer(0n);
  expect(await reason(authenticate())).toBe("UNAVAILABLE");
  expect(asked).toBeLessThanOrEqual(5);
});

test.each([
  ["cannot be reached", () => Promise.reject(new ConnectError("connect ECONNREFUSED 10.0.0.1:1", Code.Unavailable))],
  ["does not answer in time", () => Promise.reject(new ConnectError("late", Code.DeadlineExceeded))],
  ["fails", () => Promise.reject(new ConnectError("internal error", Code.Internal))],
  ["denies this service", () => Promise.reject(toConnectError(new AppError("CALLER_NOT_ALLOWED", "no"), "r"))],
  ["throws something else", () => Promise.reject(new TypeError("fetch failed"))],
])("when credentials %s nothing is decided, and the answer says nothing of it", async (_, fail) => {
  respond = fail;
  const thrown = await authenticate().then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toMatchObject({ reason: "UNAVAILABLE", message: "the credential could not be checked" });
});

test("an answer without a principal is a refusal", async () => {
  respond = async () => create(AuthenticateResponseSchema, { revision: 9n });
  expect(await reason(authenticate())).toBe("UNAUTHENTICATED");
});

test("a refusal is not remembered", async () => {
  respond = () => Promise.reject(toConnectError(refused("UNKNOWN"), newId("req")));
  expect(await reason(authenticate())).toBe("UNAUTHENTICATED");
  respond = async () => answer(feed.revision);
  expect(await reason(authenticate())).toBe("ok");
});

test.each([
  ["a wrong checksum", `${key.slice(0, -1)}${key.endsWith("a") ? "b" : "a"}`],
  ["64 KiB", "a".repeat(65_536)],
  ["no JWT", "hello"],
  ["a JWT with padding", "YQ.YQ.YQ=="],
])("%s is refused without asking", async (_, credential) => {
  expect(await reason(authenticate(credential))).toBe("UNAUTHENTICATED");
  expect(asked).toBe(0);
});

test("another scheme, and none, are refused without asking", async () => {
  const ask = async (headers: Record<string, string>) => authenticator.authenticate(new Headers(headers), call());
  expect(await reason(ask({ authorization: "Basic eDp5" }))).toBe("UNAUTHENTICATED");
  expect(await reason(ask({}))).toBe("UNAUTHENTICATED");
  expect(await reason(ask({ "x-cadre-service-token": "a.b.c" }))).toBe("UNAUTHENTICATED");
  expect(asked).toBe(0);
});

test("an address that presented ten wrong credentials is held back; another, and who is known, are not", async () => {
  await authenticate();
  const wrong = `${key.slice(0, -1)}${key.endsWith("a") ? "b" : "a"}`;
  for (let index = 0; index < 10; index++) expect(await reason(authenticate(wrong))).toBe("UNAUTHENTICATED");
  const thrown = await authenticate(wrong).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toMatchObject({ reason: "RATE_LIMITED", quotas: [{ limit: "failed_authentications_per_minute" }] });
  expect(Reflect.get(thrown as object, "retryAfterMs")).toBeGreaterThan(0);
  expect(await reason(authenticate(makeApiKey("dev").text))).toBe("RATE_LIMITED");
  expect(await reason(authenticate())).toBe("ok");
  expect(await reason(authenticate(makeApiKey("dev").text, "192.0.2.2"))).toBe("ok");
});
