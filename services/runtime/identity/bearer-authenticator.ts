import { hash } from "node:crypto";
import type { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Client } from "@connectrpc/connect";
import { BoundedMap } from "../cache/bounded-map.ts";
import { AppError } from "../errors/app-error.ts";
import { toAppError } from "../errors/failure.ts";
import type { Logger } from "../log/log.ts";
import { createTokenBuckets } from "../quota/token-bucket.ts";
import { createSharedQuestions } from "../wait/shared-question.ts";
import { isApiKeyText, parseApiKey } from "./api-key.ts";
import { onBehalfOfCall } from "./asking-call.ts";
import type { Authentication, Authenticator, IncomingCall } from "./authenticator.ts";
import { type ChangeFeed, isRevoked } from "./change-feed.ts";
import { assertPrincipal, expiryMs, freezePrincipal } from "./principal.ts";
import { Refusal, type RefusalCode, refused } from "./refusal.ts";

// Invariants:
// 1. No answer of credentials, no execution.
// 2. What is remembered is used only while the feed of changes is fresh, for at
//    most ten seconds, and never past the credential's end.
// 3. An answer that is older than what the feed has applied since is asked for
//    again: a call that began after a revocation was answered never runs on an
//    answer from before it.
// 4. Only allowed credentials are remembered, by their SHA-256.
// 5. Who keeps calling never waits for a repetition: after five seconds it is
//    asked in the background, while what is remembered still holds.
// 6. A credential is asked for once at a time, however many calls carry it: if
//    each asked, so many would wait that none is answered in time, also after
//    what had delayed the first ones is over.

export interface BearerAuthenticatorOptions {
  readonly authentication: Pick<Client<typeof AuthenticationService>, "authenticate">;
  readonly changes: ChangeFeed;
  readonly log: Logger;
  /** How many refused credentials an address may present in a minute. Default 10. */
  readonly failuresPerMinute?: number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const maxCredentialBytes = 4_096;
const maxCached = 10_000;
const maxSources = 10_000;
const maxAgeMs = 10_000;
const refreshAfterMs = 5_000;
/**
 * For all attempts together: the mesh tries again where no connection was there, and nothing else. A check is one
 * read of PostgreSQL; a second outlasts the pause of a checkpoint or of a busy machine, which is no reason to refuse.
 */
const askTimeoutMs = 1_000;
/** A JWT may be presented for so long after its end; see `createJwtVerifier`. */
const skewMs = 60_000;
/** Each round needs another revocation in the moment of asking. */
const maxRounds = 5;

interface Allowed extends Authentication {
  readonly subject: string;
  readonly tokenId: string;
  readonly askedAtMs: number;
  readonly untilMs: number;
}

/**
 * Authenticates calls of the edge by `Authorization: Bearer`, an API key or a
 * JWT. Calls with the same credential at the same time ask once.
 *
 * An address that presented too many refused credentials is answered
 * RATE_LIMITED for those that are not remembered.
 */
export function createBearerAuthenticator(options: BearerAuthenticatorOptions): Authenticator {
  const { changes, log } = options;
  const now = options.now ?? Date.now;
  const allowed = new BoundedMap<string, Allowed>(maxCached);
  const asking = createSharedQuestions<Authentication>();
  const failures = createTokenBuckets({ maxKeys: maxSources });
  const failureRate = { perSecond: (options.failuresPerMinute ?? 10) / 60, burst: options.failuresPerMinute ?? 10 };
  changes.listen({
    onRevoked: (revoked) => allowed.deleteWhere((entry) => isRevoked(entry, revoked)),
    onReset: () => allowed.clear(),
  });

  async function ask(credential: string, digest: string, call: IncomingCall): Promise<Authentication> {
    const endsAtMs = performance.now() + askTimeoutMs;
    for (let round = 0; round < maxRounds; round++) {
      const timeoutMs = Math.max(1, Math.round(endsAtMs - performance.now()));
      const answer = await options.authentication.authenticate(
        { credential, sourceAddress: call.source },
        { ...onBehalfOfCall(call), timeoutMs },
      );
      if (answer.principal === undefined) throw refused("REFUSED", { audited: true });
      assertPrincipal(answer.principal);
      const principal = freezePrincipal(answer.principal);
      if (expiryMs(principal) + skewMs <= now())
        throw refused("EXPIRED", { actor: principal.subject, orgId: principal.orgId });
      if (answer.revision < changes.revision) continue;
      if (!changes.isFresh()) return { principal, callingService: undefined };
      const entry: Allowed = {
        principal,
        callingService: undefined,
        subject: principal.subject,
        tokenId: principal.tokenId,
        askedAtMs: now(),
        untilMs: Math.min(now() + maxAgeMs, expiryMs(principal)),
      };
      allowed.set(digest, entry);
      return entry;
    }
    throw new AppError("UNAVAILABLE", "credentials change faster than they can be checked");
  }

  /** Asks for all calls that share the question: it outlives the one that asked first, if that is cancelled. */
  function askForAll(credential: string, digest: string, call: IncomingCall): () => Promise<Authentication> {
    return () => ask(credential, digest, { ...call, signal: AbortSignal.timeout(askTimeoutMs) });
  }

  /** 5: what comes of it counts for later calls. */
  function refresh(credential: string, digest: string, call: IncomingCall): void {
    asking.ask(digest, askForAll(credential, digest, call)).catch((thrown: unknown) => {
      const failure = toAppError(thrown);
      if (failure.reason === "UNAUTHENTICATED") allowed.delete(digest);
      log.debug({ err: failure }, "a remembered credential could not be confirmed");
    });
  }

  /** Turns what asking threw into what the caller is told. */
  function translate(thrown: unknown, call: IncomingCall): AppError {
    const failure = toAppError(thrown);
    if (failure.reason === "UNAUTHENTICATED") {
      const isOwn = failure.cause instanceof Refusal && !failure.cause.audited;
      return countFailure(isOwn ? failure : refused("REFUSED", { audited: true, cause: failure }), call);
    }
    if (call.signal.aborted) return failure;
    log.warn({ err: failure }, "a credential could not be checked");
    const cause = new Refusal("NOT_CHECKED", { cause: failure });
    return new AppError("UNAVAILABLE", "the credential could not be checked", { cause, retryAfterMs: 1_000 });
  }

  function countFailure(failure: AppError, call: IncomingCall): AppError {
    if (call.source !== "") failures.take(call.source, failureRate);
    return failure;
  }

  function assertNotThrottled(call: IncomingCall): void {
    const waitMs = call.source === "" ? 0 : failures.waitMs(call.source, failureRate);
    if (waitMs === 0) return;
    throw new AppError("RATE_LIMITED", "too many refused credentials came from this address", {
      retryAfterMs: waitMs,
      quotas: [
        {
          subject: "source",
          limit: "failed_authentications_per_minute",
          value: BigInt(failureRate.burst),
          description: `at most ${failureRate.burst} refused credentials a minute from one address`,
        },
      ],
    });
  }

  return {
    authenticate(header, call) {
      const credential = readBearer(header);
      if (credential === "") throw refused("NO_CREDENTIAL");
      const digest = hash("sha256", credential, "base64");
      const isFresh = changes.isFresh();
      const known = isFresh ? allowed.get(digest) : undefined;
      if (known !== undefined && known.untilMs > now()) {
        if (now() - known.askedAtMs >= refreshAfterMs && !asking.has(digest)) refresh(credential, digest, call);
        return known;
      }
      assertNotThrottled(call);
      const fault = findFault(credential);
      if (fault !== undefined) throw countFailure(refused(fault), call);
      const question = askForAll(credential, digest, call);
      // 6: while the feed is not fresh, one that others asked before this call began may be
      // answered from before a revocation that this process has not heard of.
      const answer = isFresh ? asking.ask(digest, question) : asking.askFromNow(digest, question);
      return answer.catch((thrown: unknown) => {
        throw translate(thrown, call);
      });
    },
  };
}

/** The credential after `Bearer`; empty if there is none. RFC 6750, 2.1; the scheme is case-insensitive (RFC 9110, 11.1). */
function readBearer(header: Headers): string {
  const value = header.get("authorization");
  if (value === null) return "";
  const match = /^bearer +(.*)$/i.exec(value);
  if (match?.[1] === undefined) throw refused("MALFORMED");
  return match[1];
}

/** What is wrong with a credential that can be told without asking anybody. */
function findFault(credential: string): RefusalCode | undefined {
  if (credential.length > maxCredentialBytes) return "TOO_LONG";
  if (isApiKeyText(credential)) return parseApiKey(credential) === undefined ? "CHECKSUM" : undefined;
  return /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/.test(credential) ? undefined : "MALFORMED";
}
