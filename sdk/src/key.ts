import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ApiKeyService, type Key, Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type RevokeTokenResponse, TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import { type Caller, type CallOptions, type EffectCallOptions, required } from "./caller.ts";
import { createListing, type Listing, type PageOptions } from "./page.ts";

/** What a new key is to be. */
export interface IssueKeyOptions extends EffectCallOptions {
  /** What it is for; at most 128 characters. */
  readonly name: string;
  /** The role of who presents it; `member` unless said. */
  readonly role?: "member" | "developer" | "admin" | "owner";
  /** What it may be used for: `*`, a family such as `sessions.*`, or a scope such as `tools.serve`. */
  readonly scopes: readonly string[];
  /** The names of the tools that a worker with this key may serve; none unless said. */
  readonly tools?: readonly string[];
  /** How long it is valid, in milliseconds; 90 days unless said, at most 400 days. */
  readonly lifetimeMs?: number;
}

/** A key with its secret. */
export interface IssuedKey {
  readonly key: Key;
  /** What to present. It is in this answer and nowhere else. */
  readonly secret: string;
}

/** A JWT of the org: itself, or what it says of itself. */
export type TokenReference =
  | { readonly jwt: string }
  | {
      /** Its `iss`. */
      readonly issuer: string;
      /** Its `jti`. */
      readonly tokenId: string;
      /** Its `exp`; 400 days from now unless said, the longest that any token is accepted for. */
      readonly expiresAt?: Date;
    };

/** The API keys of the org, and the JWTs of its users. Each method wants the role `admin`. */
export interface Keys {
  /** Issues a key. @throws CadreError `GRANT_TOO_WIDE` if it would carry more than the caller's own */
  issue(options: IssueKeyOptions): Promise<IssuedKey>;
  /** Lists the org's keys, newest first, without their secrets. */
  list(options?: PageOptions): Listing<Key>;
  /** Returns a key, without its secret. @throws CadreError `KEY_NOT_FOUND` */
  get(keyId: string, options?: CallOptions): Promise<Key>;
  /** Revokes a key: once resolved, no process accepts it any more. @throws CadreError `KEY_NOT_FOUND` */
  revoke(keyId: string, options?: CallOptions): Promise<Key>;
  /**
   * Revokes one JWT: once resolved, no process accepts it any more, and what
   * runs for it parks at its next step.
   *
   * @throws CadreError `INVALID_ARGUMENT` for what is no token of the org
   */
  revokeToken(token: TokenReference, options?: CallOptions): Promise<RevokeTokenResponse>;
}

const roleNumber = {
  member: Role.MEMBER,
  developer: Role.DEVELOPER,
  admin: Role.ADMIN,
  owner: Role.OWNER,
} as const;

/** Creates the keys of a client. */
export function createKeys(caller: Caller): Keys {
  const { method } = ApiKeyService;
  return {
    async issue({ name, role = "member", scopes, tools = [], lifetimeMs, ...options }) {
      const request = {
        name,
        role: roleNumber[role],
        scopes: [...scopes],
        tools: [...tools],
        ...(lifetimeMs === undefined ? {} : { lifetime: durationFromMs(lifetimeMs) }),
      };
      const { key, secret } = await caller.unary(method.issueKey, request, options);
      return { key: required(key, "the key"), secret };
    },
    list(options = {}) {
      return createListing(options, async (pageToken) => {
        const request = { pageSize: options.pageSize ?? 0, pageToken };
        const { keys, nextPageToken } = await caller.unary(method.listKeys, request, { signal: options.signal });
        return { items: keys, nextPageToken };
      });
    },
    async get(keyId, options) {
      const { key } = await caller.unary(method.getKey, { keyId }, options);
      return required(key, "the key");
    },
    async revoke(keyId, options) {
      const { key } = await caller.unary(method.revokeKey, { keyId }, options);
      return required(key, "the key");
    },
    revokeToken(token, options) {
      return caller.unary(TokenService.method.revokeToken, { token: toTokenCase(token) }, options);
    },
  };
}

function toTokenCase(token: TokenReference) {
  if ("jwt" in token) return { case: "jwt", value: token.jwt } as const;
  const { issuer, tokenId, expiresAt } = token;
  const end = expiresAt === undefined ? {} : { expiresAt: timestampFromDate(expiresAt) };
  return { case: "id", value: { issuer, tokenId, ...end } } as const;
}
