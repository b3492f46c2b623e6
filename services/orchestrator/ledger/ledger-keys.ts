/**
 * The keys that the heads of ledgers are signed with. Invariants:
 *
 * 1. A key file is a seed of 32 bytes, 64 hexadecimal digits, 0600, like every
 *    other key of an installation; its public key is named by its RFC 7638
 *    thumbprint.
 * 2. The last file by name signs; all are published. To rotate, add a file with
 *    a later name; remove an old one when nothing that it signed is kept.
 * 3. A directory that cannot be read any more changes nothing: what was read
 *    last goes on, and the log says so.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ConfigurationError } from "../../runtime/config/settings.ts";
import { loadOrMakeKeyFile, readKeyFile } from "../../runtime/identity/key-file.ts";
import type { Logger } from "../../runtime/log/log.ts";

/** What a signature is over: how a ledger ended when it was exported. */
export interface LedgerHead {
  /** `run_…`. */
  readonly runId: string;
  readonly entries: number;
  /** The hash of the last entry. */
  readonly hash: Uint8Array;
}

/** A public key as RFC 8037 writes it in a JWK. */
export interface PublicLedgerKey {
  readonly kid: string;
  /** The key's 32 bytes in base64url. */
  readonly x: string;
}

/** Signs heads, and says by which keys they are verified. */
export interface LedgerKeys {
  /** A compact JWS (RFC 7515, EdDSA) over `{"run_id","entries","head","signed_at"}`. */
  sign(head: LedgerHead): string;
  /** All that are kept, the one that signs first. */
  published(): readonly PublicLedgerKey[];
}

export interface LedgerKeysOptions {
  /** Holds `*.key`; the first one is made if there is none. */
  readonly directory: string;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface SigningKey extends PublicLedgerKey {
  readonly privateKey: KeyObject;
}

const ending = ".key";
/** How old what was read may be, in milliseconds: a rotation is seen after that. */
const maxAgeMs = 10_000;
/** PKCS #8 of an Ed25519 key up to its seed (RFC 8410). */
const pkcs8Prefix = Buffer.from("302e020100300506032b657004220420", "hex");

/**
 * Opens the directory of an installation's ledger keys.
 *
 * @throws ConfigurationError if a file is no key, or others may read it
 */
export function openLedgerKeys({ directory, log, now = Date.now }: LedgerKeysOptions): LedgerKeys {
  let keys = readKeys(directory);
  let readAtMs = now();

  function current(): readonly [SigningKey, ...SigningKey[]] {
    if (now() - readAtMs < maxAgeMs) return keys;
    readAtMs = now();
    try {
      keys = readKeys(directory);
    } catch (error) {
      log.error({ err: error }, "the keys of ledgers cannot be read; those that were read before stay");
    }
    return keys;
  }

  return {
    sign({ runId, entries, hash }) {
      const [{ kid, privateKey }] = current();
      const header = { alg: "EdDSA", kid, typ: "cadre-ledger+jws" };
      const head = Buffer.from(hash).toString("hex");
      const claims = { run_id: runId, entries, head, signed_at: new Date(now()).toISOString() };
      const signed = `${toBase64url(header)}.${toBase64url(claims)}`;
      return `${signed}.${sign(null, Buffer.from(signed), privateKey).toString("base64url")}`;
    },
    published: () => current().map(({ kid, x }) => ({ kid, x })),
  };
}

function readKeys(directory: string): readonly [SigningKey, ...SigningKey[]] {
  // Of several processes that start at once, one makes it.
  if (!namesIn(directory).length) loadOrMakeKeyFile(join(directory, `0001${ending}`));
  const [first, ...others] = namesIn(directory).map((name) => toKey(readKeyFile(join(directory, name))));
  if (first === undefined) throw new ConfigurationError([`${directory} holds no ledger key`]);
  return [first, ...others];
}

/** The last one by name first. */
function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory)
      .filter((name) => name.endsWith(ending))
      .sort()
      .reverse();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

function toKey(seed: Buffer): SigningKey {
  const privateKey = createPrivateKey({ key: Buffer.concat([pkcs8Prefix, seed]), format: "der", type: "pkcs8" });
  const { x = "" } = createPublicKey(privateKey).export({ format: "jwk" });
  // RFC 7638: the members that make the key, in order, without spaces.
  const kid = createHash("sha256")
    .update(JSON.stringify({ crv: "Ed25519", kty: "OKP", x }))
    .digest("base64url");
  return { privateKey, x, kid };
}

function toBase64url(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
