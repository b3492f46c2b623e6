import type { AuthenticationService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { Client } from "@connectrpc/connect";
import { BoundedMap } from "../cache/bounded-map.ts";
import { AppError } from "../errors/app-error.ts";
import type { Logger } from "../log/log.ts";
import type { ChangeFeed } from "./change-feed.ts";

/** The limits of orgs, by name; see the credentials service for the names. */
export interface Limits {
  /**
   * A limit's value. When credentials cannot be reached, the value that was
   * known last: a limit protects the installation and grants nothing.
   *
   * @throws AppError UNAVAILABLE if it was never known and cannot be had; LIMIT_NOT_FOUND for a name that is none
   */
  get(orgId: string, name: string): number | Promise<number>;
}

export interface LimitsOptions {
  readonly authentication: Pick<Client<typeof AuthenticationService>, "getLimits">;
  readonly changes: ChangeFeed;
  readonly log: Logger;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

const maxOrgs = 10_000;
const maxAgeMs = 60_000;
/** While credentials cannot be reached, or the feed is not fresh, an org is asked for no more often. */
const retryMs = 1_000;
/** The last known value, or the default, is better than to keep a call waiting. */
const askTimeoutMs = 250;

interface KnownLimits {
  readonly values: Readonly<Record<string, bigint>>;
  /** Asked for again after that. */
  readonly untilMs: number;
  /** Of which time between two resets of the feed it is; asked for again in the next. */
  readonly epoch: number;
}

/** Reads limits from credentials, remembers them, and forgets what the feed says has changed. */
export function createLimits(options: LimitsOptions): Limits {
  const { changes, log } = options;
  const now = options.now ?? (() => performance.now());
  const known = new BoundedMap<string, KnownLimits>(maxOrgs);
  const asking = new Map<string, Promise<KnownLimits>>();
  const expire = (orgId: string): void => {
    const limits = known.get(orgId);
    if (limits !== undefined) known.set(orgId, { ...limits, untilMs: 0 });
    // An answer that is under way is from before the change.
    asking.delete(orgId);
  };
  let epoch = 0;
  changes.listen({
    onLimitsChanged: expire,
    onReset: () => {
      epoch += 1;
    },
  });

  async function ask(orgId: string): Promise<KnownLimits> {
    const asked = epoch;
    try {
      const { values } = await options.authentication.getLimits({ orgId }, { timeoutMs: askTimeoutMs });
      return { values, untilMs: now() + (changes.isFresh() ? maxAgeMs : retryMs), epoch: asked };
    } catch (cause) {
      const last = known.get(orgId);
      if (last === undefined) throw new AppError("UNAVAILABLE", "the org's limits cannot be read", { cause });
      log.warn({ err: cause, org_id: orgId }, "limits could not be read; the last known ones hold");
      return { values: last.values, untilMs: now() + retryMs, epoch: asked };
    }
  }

  function refresh(orgId: string): Promise<KnownLimits> {
    const under = asking.get(orgId);
    if (under !== undefined) return under;
    const started: Promise<KnownLimits> = ask(orgId)
      .then((limits) => {
        // Forgotten meanwhile: the next one asks again.
        if (asking.get(orgId) === started) known.set(orgId, limits);
        return limits;
      })
      .finally(() => {
        if (asking.get(orgId) === started) asking.delete(orgId);
      });
    asking.set(orgId, started);
    return started;
  }

  return {
    get(orgId, name) {
      const limits = known.get(orgId);
      if (limits !== undefined && limits.untilMs > now() && limits.epoch === epoch) return read(limits, name);
      return refresh(orgId).then((fresh) => read(fresh, name));
    },
  };
}

function read({ values }: KnownLimits, name: string): number {
  const value = values[name];
  if (value === undefined) throw new AppError("LIMIT_NOT_FOUND", "no limit of that name");
  return Number(value);
}
