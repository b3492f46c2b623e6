import type { AuthenticationService, Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Client } from "@connectrpc/connect";
import { BoundedMap } from "../cache/bounded-map.ts";
import { AppError } from "../errors/app-error.ts";
import { toAppError } from "../errors/failure.ts";
import { boundary } from "../failpoint/failpoint.ts";
import { createSharedQuestions } from "../wait/shared-question.ts";
import { untilAborted } from "../wait/until-aborted.ts";
import { type ChangeFeed, isRevoked } from "./change-feed.ts";
import { encodePrincipal, freezePrincipal } from "./principal.ts";

/** Says whether a principal that was authenticated before, maybe hours ago, may still act. */
export interface PrincipalCheck {
  /**
   * What the principal may do now. Costs no call while the feed of changes is
   * fresh and the principal was asked for in the last ten seconds.
   *
   * @throws AppError PRINCIPAL_REVOKED if it may not act any more, UNAVAILABLE if that cannot be found out
   */
  assertMayAct(principal: Principal, signal?: AbortSignal): Promise<Principal>;
}

export interface PrincipalCheckOptions {
  readonly authentication: Pick<Client<typeof AuthenticationService>, "checkPrincipal">;
  readonly changes: ChangeFeed;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

const maxCached = 10_000;
const maxAgeMs = 10_000;
const askTimeoutMs = 2_000;
/** Each round needs another revocation in the moment of asking. */
const maxRounds = 5;

interface Checked {
  readonly asked: Principal;
  readonly principal: Principal;
  readonly untilMs: number;
}

/** Checks principals with credentials; remembers who may act for ten seconds. */
export function createPrincipalCheck(options: PrincipalCheckOptions): PrincipalCheck {
  const { changes } = options;
  const now = options.now ?? (() => performance.now());
  const checked = new BoundedMap<string, Checked>(maxCached);
  const asking = createSharedQuestions<Principal>();
  changes.listen({
    onRevoked: (revoked) => checked.deleteWhere(({ asked }) => isRevoked(asked, revoked)),
    onReset: () => checked.clear(),
  });

  async function ask(asked: Principal, digest: string): Promise<Principal> {
    for (let round = 0; round < maxRounds; round++) {
      const check = () => options.authentication.checkPrincipal({ principal: asked }, { timeoutMs: askTimeoutMs });
      const answer = await boundary("principal.check", check).catch((thrown: unknown) => {
        const cause = toAppError(thrown);
        throw new AppError("UNAVAILABLE", "the principal could not be checked", { cause, retryAfterMs: 1_000 });
      });
      // An answer from before a change that was applied meanwhile is none.
      if (answer.revision < changes.revision) continue;
      if (answer.principal === undefined) {
        throw new AppError("PRINCIPAL_REVOKED", "the credential that this was started with is valid no more");
      }
      const principal = freezePrincipal(answer.principal);
      if (changes.isFresh()) checked.set(digest, { asked, principal, untilMs: now() + maxAgeMs });
      return principal;
    }
    throw new AppError("UNAVAILABLE", "credentials change faster than they can be checked");
  }

  return {
    async assertMayAct(principal, signal) {
      const digest = encodePrincipal(principal);
      const known = changes.isFresh() ? checked.get(digest) : undefined;
      if (known !== undefined && known.untilMs > now()) return known.principal;
      // Whoever comes to act at the same time shares an answer that is asked for from now on.
      const answer = asking.askFromNow(digest, () => ask(principal, digest));
      return signal === undefined ? answer : untilAborted(answer, signal);
    },
  };
}
