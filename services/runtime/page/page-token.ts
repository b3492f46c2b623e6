import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { AppError } from "../errors/app-error.ts";

// Invariants:
// 1. A token opens for the org, the method and the filter that it was sealed
//    for and no other: the three are authenticated with it, not written in it.
// 2. Whatever is wrong with a token, the answer is the same.

/** The list that a page belongs to. */
export interface PageScope {
  readonly orgId: string;
  /** The method, for example `cadre.orchestrator.v1.SessionService/ListSessions`. */
  readonly method: string;
  /** Every field of the request that narrows the list, in one text; empty for none. */
  readonly filter: string;
}

/** Seals where a list goes on, so that callers can neither read nor forge it. */
export interface PageTokens {
  /**
   * The token of the next page.
   *
   * @param position where it begins, at most 512 bytes; what it means is the list's own business
   */
  seal(scope: PageScope, position: string): string;
  /**
   * The position within a token; `undefined` for an empty one, which is the first page.
   *
   * @throws AppError INVALID_PAGE_TOKEN if it is malformed, older than an hour, or of another list
   */
  open(scope: PageScope, token: string): string | undefined;
}

const version = 1;
const nonceBytes = 12;
const tagBytes = 16;
const timeBytes = 6;
const maxPositionBytes = 512;
const maxTokenCharacters = 1_024;
const maxAgeMs = 3_600_000;
/** Clocks of two replicas may differ that much. */
const skewMs = 60_000;

/**
 * Page tokens under the installation's key (see `loadOrMakeKeyFile`), which all
 * processes share. AES-256-GCM with random nonces; good for 2^32 tokens a key.
 *
 * @param key 32 bytes
 * @param now milliseconds since the epoch
 */
export function createPageTokens(key: Uint8Array, now: () => number = Date.now): PageTokens {
  if (key.byteLength !== 32) throw new TypeError("a page token key has 32 bytes");
  const derived = Buffer.from(hkdfSync("sha256", key, new Uint8Array(), "cadre page token v1", 32));
  return {
    seal(scope, position) {
      const content = Buffer.from(`${"\0".repeat(timeBytes)}${position}`, "utf8");
      if (content.byteLength > timeBytes + maxPositionBytes)
        throw new TypeError("a page position has at most 512 bytes");
      content.writeUIntBE(now(), 0, timeBytes);
      const nonce = randomBytes(nonceBytes);
      const cipher = createCipheriv("aes-256-gcm", derived, nonce).setAAD(associatedData(scope));
      const sealed = cipher.update(content);
      cipher.final();
      return Buffer.concat([Uint8Array.of(version), nonce, sealed, cipher.getAuthTag()]).toString("base64url");
    },
    open(scope, token) {
      if (token === "") return undefined;
      const content = decrypt(derived, scope, token);
      if (content === undefined) throw invalid();
      const ageMs = now() - content.readUIntBE(0, timeBytes);
      if (ageMs > maxAgeMs || ageMs < -skewMs) throw invalid();
      return content.toString("utf8", timeBytes);
    },
  };
}

function decrypt(key: Buffer, scope: PageScope, token: string): Buffer | undefined {
  if (token.length > maxTokenCharacters || !/^[A-Za-z0-9_-]+$/.test(token)) return undefined;
  const bytes = Buffer.from(token, "base64url");
  if (bytes[0] !== version || bytes.byteLength < 1 + nonceBytes + timeBytes + tagBytes) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(1, 1 + nonceBytes), {
    authTagLength: tagBytes,
  });
  decipher.setAAD(associatedData(scope)).setAuthTag(bytes.subarray(-tagBytes));
  const content = decipher.update(bytes.subarray(1 + nonceBytes, -tagBytes));
  try {
    decipher.final();
  } catch {
    // Thrown for a tag that does not fit, and for nothing else.
    return undefined;
  }
  return content;
}

/** Lengths before the parts, so that no two lists give the same bytes. */
function associatedData(scope: PageScope): Buffer {
  const parts = [scope.orgId, scope.method, scope.filter].map((part) => Buffer.from(part, "utf8"));
  return Buffer.concat(
    parts.flatMap((part) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(part.byteLength);
      return [length, part];
    }),
  );
}

function invalid(): AppError {
  return new AppError("INVALID_PAGE_TOKEN", "page_token: not a token of this list, or older than an hour");
}
