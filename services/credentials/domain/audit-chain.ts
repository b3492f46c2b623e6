import { createHash, createHmac, hkdfSync } from "node:crypto";

// Invariants:
// 1. An entry's hash covers all of it, its place in the log, and the hash of
//    the entry before: no entry can be changed, removed, added or moved without
//    changing all that follow.
// 2. The head (place and hash of the newest entry) is sealed with a key that is
//    not in the database: no end can be cut off, and no log written anew,
//    by who has the database alone.

/** The org of events that belong to none, as a UUID. */
export const noOrg = "00000000-0000-0000-0000-000000000000";

/** What stands before the first entry. */
export const genesisHash: Buffer = Buffer.alloc(32);

/** An entry of the audit log without its hashes. Texts have no control characters. */
export interface AuditContent {
  readonly org_id: string;
  readonly event_id: string;
  readonly at: Date;
  readonly type: string;
  readonly actor: string;
  readonly action: string;
  readonly resource: string;
  readonly decision: number;
  readonly reason: string;
  readonly request_id: string;
  readonly trace_id: string;
  readonly source: string;
  readonly count: number;
}

/** An entry in its place. */
export interface ChainedEntry extends AuditContent {
  readonly seq: bigint;
  readonly previous_hash: Buffer;
  readonly hash: Buffer;
}

/** The newest entry's place and hash. */
export interface ChainHead {
  readonly seq: bigint;
  readonly hash: Buffer;
}

/** Puts contents at the end of a log. */
export function chain(head: ChainHead, contents: readonly AuditContent[]): ChainedEntry[] {
  let { seq, hash } = head;
  return contents.map((content) => {
    seq += 1n;
    const previous_hash = hash;
    hash = hashEntry(content, seq, previous_hash);
    return { ...content, seq, previous_hash, hash };
  });
}

/** SHA-256 over the entry's fields as a JSON array, in the order written here, which never changes. */
export function hashEntry(content: AuditContent, seq: bigint, previousHash: Buffer): Buffer {
  const fields = [
    "cadre-audit-v1",
    previousHash.toString("hex"),
    seq.toString(),
    content.org_id,
    content.event_id,
    content.at.getTime(),
    content.type,
    content.actor,
    content.action,
    content.resource,
    content.decision,
    content.reason,
    content.request_id,
    content.trace_id,
    content.source,
    content.count,
  ];
  return createHash("sha256").update(JSON.stringify(fields)).digest();
}

/** The key that seals heads, from the server's key. */
export function auditSealKey(serverKey: Uint8Array): Buffer {
  return Buffer.from(hkdfSync("sha256", serverKey, new Uint8Array(), "cadre audit head v1", 32));
}

/** The seal of a head. */
export function sealHead(sealKey: Buffer, orgId: string, head: ChainHead): Buffer {
  return createHmac("sha256", sealKey)
    .update(JSON.stringify([orgId, head.seq.toString(), head.hash.toString("hex")]))
    .digest();
}

/** What is wrong with a log, and where. */
export type AuditFault =
  | { readonly kind: "missing"; readonly seq: bigint }
  | { readonly kind: "altered"; readonly seq: bigint }
  | { readonly kind: "cut"; readonly seq: bigint }
  | { readonly kind: "seal"; readonly seq: bigint };

/** Checks a log entry by entry, in order; remembers no more than the end. */
export class ChainCheck {
  #seq = 0n;
  #hash: Buffer = genesisHash;

  /** The fault of the next entry; `undefined` if it fits. */
  next(entry: ChainedEntry): AuditFault | undefined {
    const seq = this.#seq + 1n;
    if (entry.seq !== seq) return { kind: "missing", seq };
    if (!entry.previous_hash.equals(this.#hash)) return { kind: "altered", seq };
    if (!hashEntry(entry, seq, this.#hash).equals(entry.hash)) return { kind: "altered", seq };
    this.#seq = seq;
    this.#hash = entry.hash;
    return undefined;
  }

  /** The fault of the log's end; `undefined` if it is where the sealed head says. */
  end(
    sealKey: Buffer,
    orgId: string,
    head: (ChainHead & { readonly mac: Buffer }) | undefined,
  ): AuditFault | undefined {
    if (head === undefined) return this.#seq === 0n ? undefined : { kind: "seal", seq: this.#seq };
    if (!sealHead(sealKey, orgId, head).equals(head.mac)) return { kind: "seal", seq: head.seq };
    if (head.seq !== this.#seq || !head.hash.equals(this.#hash)) return { kind: "cut", seq: this.#seq + 1n };
    return undefined;
  }
}
