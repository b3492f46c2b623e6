/** Verifies the signature of an exported ledger's head, without a server, by what the contract says of it. */
import { createPublicKey, verify } from "node:crypto";
import { z } from "zod";

/** What an installation signed: how a ledger ended at that time. */
export interface SignedHead {
  /** The key's id. */
  readonly keyId: string;
  readonly signedAt: Date;
}

/** Public keys, as `cadre runs keys` writes them: a JWK set (RFC 7517) of Ed25519 keys. */
export const ledgerKeySet = z.object({
  keys: z.array(
    z.object({
      kty: z.literal("OKP"),
      crv: z.literal("Ed25519"),
      kid: z.string().min(1),
      x: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
    }),
  ),
});
export type LedgerKeySet = z.infer<typeof ledgerKeySet>;

const protectedHeader = z.object({ alg: z.literal("EdDSA"), typ: z.literal("cadre-ledger+jws"), kid: z.string() });
const claimSet = z.object({ run_id: z.string(), entries: z.number(), head: z.string(), signed_at: z.iso.datetime() });

/** What came of it: the signature's own words, or the problem. */
export type SignatureReport = SignedHead | { readonly problem: string };

/**
 * Verifies that one of the keys has signed this end of this ledger.
 *
 * @param signature a compact JWS; empty for none
 * @param head the hash of the last entry, in lower-case hexadecimal
 */
export function verifySignature(
  signature: string,
  { runId, entries, head }: { readonly runId: string; readonly entries: number; readonly head: string },
  { keys }: LedgerKeySet,
): SignatureReport {
  if (signature === "") return { problem: "its end is not signed" };
  const [headerPart = "", claimsPart = "", signaturePart = "", ...rest] = signature.split(".");
  const header = protectedHeader.safeParse(parsePart(headerPart));
  const claims = claimSet.safeParse(parsePart(claimsPart));
  if (!header.success || !claims.success || rest.length > 0) return { problem: "its signature cannot be read" };
  const { kid } = header.data;
  const key = keys.find((candidate) => candidate.kid === kid);
  if (key === undefined) return { problem: `its end is signed with ${kid}, which is none of the given keys` };
  const publicKey = createPublicKey({ key: { kty: key.kty, crv: key.crv, x: key.x }, format: "jwk" });
  const isSigned = verify(
    null,
    Buffer.from(`${headerPart}.${claimsPart}`),
    publicKey,
    Buffer.from(signaturePart, "base64url"),
  );
  if (!isSigned) return { problem: `its signature is not one of ${kid}` };
  const signed = claims.data;
  if (signed.run_id !== runId || signed.entries !== entries || signed.head !== head) {
    const what = `${signed.entries} entries of ${signed.run_id} that end with ${signed.head}`;
    return { problem: `what was signed are ${what}: it was rewritten, or cut off` };
  }
  return { keyId: kid, signedAt: new Date(signed.signed_at) };
}

function parsePart(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
  } catch {
    return undefined; // told as a signature that cannot be read
  }
}
