import { createHmac, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

/** Where a key is used: `live` in production, `dev` elsewhere. Part of the key's text, so that people see it. */
export type ApiKeyEnvironment = "live" | "dev";

/** An API key whose checksum is right. It may still be unknown, expired or revoked. */
export interface ApiKey {
  readonly environment: ApiKeyEnvironment;
  /** The whole text. A secret: never logged or stored. */
  readonly text: string;
  /** The first 12 characters, by which people recognise it: `cdr_dev_` and 4 of its 32 random ones. */
  readonly prefix: string;
}

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const randomLength = 32;
const checksumLength = 6;
const prefixLength = 12;
const pattern = /^cdr_(live|dev)_([0-9A-Za-z]{32})([0-9A-Za-z]{6})$/;

/** Whether a text means to be an API key of ours: it begins with `cdr_`. */
export function isApiKeyText(text: string): boolean {
  return text.startsWith("cdr_");
}

/**
 * Makes an API key: `cdr_<environment>_`, 32 random characters of base62 (190
 * bits), and a checksum of all before it in 6 more. Secret scanners find it by
 * its form, and a mistyped one is refused without asking anybody.
 *
 * @param random cryptographically strong random bytes
 */
export function makeApiKey(
  environment: ApiKeyEnvironment,
  random: (bytes: number) => Uint8Array = randomBytes,
): ApiKey {
  let body = "";
  while (body.length < randomLength) {
    for (const byte of random(randomLength * 2)) {
      // 248 is the greatest multiple of 62 in a byte: above it, the first
      // characters of the alphabet would come up more often.
      if (byte < 248 && body.length < randomLength) body += alphabet[byte % 62];
    }
  }
  const start = `cdr_${environment}_${body}`;
  return toApiKey(environment, start + checksum(start));
}

/** Reads an API key. `undefined` if its form or its checksum is wrong. */
export function parseApiKey(text: string): ApiKey | undefined {
  const [, environment, , check] = pattern.exec(text) ?? [];
  if (environment !== "live" && environment !== "dev") return undefined;
  return checksum(text.slice(0, -checksumLength)) === check ? toApiKey(environment, text) : undefined;
}

/**
 * What is stored of a key: HMAC-SHA-256 with the server's key, 32 bytes. A key
 * has 190 random bits, so no slow hash is needed.
 */
export function apiKeyDigest(hmacKey: Uint8Array, key: ApiKey): Buffer {
  return createHmac("sha256", hmacKey).update(key.text).digest();
}

function toApiKey(environment: ApiKeyEnvironment, text: string): ApiKey {
  return { environment, text, prefix: text.slice(0, prefixLength) };
}

/** CRC32 (zlib's) as 6 digits of base62, most significant first: 62^6 > 2^32. */
function checksum(text: string): string {
  let rest = crc32(text);
  let digits = "";
  for (let index = 0; index < checksumLength; index++) {
    digits = alphabet[rest % 62] + digits;
    rest = Math.floor(rest / 62);
  }
  return digits;
}
