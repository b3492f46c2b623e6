/**
 * Verifies an exported run without a server: by what the contract says of
 * `ExportRunResponse.hash`, and by nothing of the code that made it.
 */
import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Entry, EntrySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import type { ExportedRun, ExportRunResponse } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { toUuid } from "../../services/runtime/ids/id.ts";
import { type LedgerKeySet, type SignedHead, verifySignature } from "./verify-signature.ts";

/** What a run held on to, as its ledger says. */
export interface LedgerPins {
  /** `sha256:…` of the graph or agent definition; empty if the ledger does not get so far. */
  readonly definition: string;
  /** The agent and its revision, for example `helper@3`; empty for an inline graph. */
  readonly agent: string;
  /** Agents that its steps name, with their digests. */
  readonly agents: readonly { readonly name: string; readonly digest: string }[];
  readonly tools: readonly { readonly name: string; readonly digest: string }[];
  readonly models: readonly string[];
}

/** What a ledger is held to besides itself; both are noted elsewhere. */
export interface LedgerWitness {
  /** Its head, in hexadecimal. */
  readonly head?: string | undefined;
  /** The installation's public keys, one of which has to have signed its end. */
  readonly keys?: LedgerKeySet | undefined;
}

/** Who signed the end of a ledger: without keys, one that is there is not checked. */
export type LedgerSignature = ({ readonly state: "verified" } & SignedHead) | { readonly state: "unchecked" | "none" };

/** What came of a verification. */
export type LedgerReport =
  | {
      readonly intact: true;
      readonly runId: string;
      readonly entries: number;
      /** The hash of the last entry, in lower-case hexadecimal; it covers all of them. */
      readonly head: string;
      /** Whether the last entry ends the run; without it, entries may be missing behind it. */
      readonly ended: boolean;
      readonly firstAt: Date | undefined;
      readonly lastAt: Date | undefined;
      readonly pins: LedgerPins;
      readonly signature: LedgerSignature;
    }
  | {
      readonly intact: false;
      readonly runId: string;
      /** The first entry at which the chain breaks. */
      readonly entry: number;
      readonly problem: string;
    };

/**
 * Verifies the chain over all entries. Without a witness, entries that were cut
 * off at the end of a run that has not ended cannot be noticed, nor a ledger
 * that was written anew with all its hashes.
 */
export function verifyLedger({ runId, entries }: ExportedRun, witness: LedgerWitness = {}): LedgerReport {
  const run = Buffer.from(toUuid("run", runId).replaceAll("-", ""), "hex");
  let previous: Uint8Array = new Uint8Array(32);
  const decoded: Entry[] = [];
  for (const [index, part] of entries.entries()) {
    const entry = index + 1;
    const { problem, body } = readEntry(part, entry);
    if (problem !== undefined) return { intact: false, runId, entry, problem };
    const hash = hashOf(previous, run, part);
    if (!hash.equals(part.hash)) {
      return { intact: false, runId, entry, problem: "its bytes or its hash were changed, or it was moved" };
    }
    if (decoded.at(-1)?.body.case === "runEnded" || decoded.at(-1)?.body.case === "graphEnded") {
      return { intact: false, runId, entry, problem: "it follows the end of the run" };
    }
    previous = hash;
    decoded.push(body);
  }
  const head = Buffer.from(previous).toString("hex");
  if (entries.length === 0) return { intact: false, runId, entry: 1, problem: "there is none" };
  if (witness.head !== undefined && witness.head.toLowerCase() !== head) {
    const problem = `the ledger ends with ${head}, and not with ${witness.head}: entries are missing, or were made up`;
    return { intact: false, runId, entry: entries.length, problem };
  }
  const signature = entries.at(-1)?.signature ?? "";
  const signed =
    witness.keys === undefined
      ? undefined
      : verifySignature(signature, { runId, entries: entries.length, head }, witness.keys);
  if (signed !== undefined && "problem" in signed) {
    return { intact: false, runId, entry: entries.length, problem: signed.problem };
  }
  const last = decoded.at(-1);
  return {
    intact: true,
    runId,
    entries: entries.length,
    head,
    ended: last?.body.case === "runEnded" || last?.body.case === "graphEnded",
    firstAt: decoded[0]?.at === undefined ? undefined : timestampDate(decoded[0].at),
    lastAt: last?.at === undefined ? undefined : timestampDate(last.at),
    pins: pinsOf(decoded),
    signature:
      signed === undefined ? { state: signature === "" ? "none" : "unchecked" } : { state: "verified", ...signed },
  };
}

type ReadEntry =
  | { readonly problem: string; readonly body?: never }
  | { readonly problem?: never; readonly body: Entry };

function readEntry({ seq, kind, body }: ExportRunResponse, expected: number): ReadEntry {
  if (seq !== BigInt(expected)) return { problem: `it has the number ${seq}: an entry is missing, or was moved` };
  let entry: Entry;
  try {
    entry = fromBinary(EntrySchema, body);
  } catch {
    return { problem: "its bytes cannot be read" };
  }
  const field = EntrySchema.fields.find(({ localName }) => localName === entry.body.case);
  // An entry of a kind that this version does not know is covered by its hash all the same.
  if (field !== undefined && field.number !== kind) return { problem: `it is of kind ${field.number}, not ${kind}` };
  return { body: entry };
}

/** SHA-256 over the hash before, the run's 16 bytes, the number as 4 bytes, the kind as 2, and the bytes. */
function hashOf(previous: Uint8Array, run: Uint8Array, { seq, kind, body }: ExportRunResponse): Buffer {
  const place = Buffer.alloc(6);
  place.writeUInt32BE(Number(seq), 0);
  place.writeUInt16BE(kind & 0xffff, 4);
  return createHash("sha256").update(previous).update(run).update(place).update(body).digest();
}

function pinsOf(entries: readonly Entry[]): LedgerPins {
  const [first, second] = entries.slice(0, 2).map(({ body }) => body);
  const accepted = first?.case === "runAccepted" ? first.value : undefined;
  const started = second?.case === "runStarted" ? second.value : undefined;
  const { agent, input } = accepted ?? {};
  const models = new Set(Object.keys(started?.models ?? {}));
  if (agent?.definition !== undefined && input?.case === "turn") models.add(agent.definition.model);
  return {
    definition: input?.case === "graph" ? input.value.digest : (agent?.digest ?? ""),
    agent: agent === undefined ? "" : `${agent.definition?.name ?? ""}@${agent.revision}`,
    agents: byName((started?.agents ?? []).map(({ definition, digest }) => ({ name: definition?.name ?? "", digest }))),
    tools: byName((started?.tools ?? []).map(({ definition, digest }) => ({ name: definition?.name ?? "", digest }))),
    models: [...models].sort(),
  };
}

function byName<T extends { readonly name: string }>(items: readonly T[]): readonly T[] {
  return [...items].sort((a, b) => (a.name < b.name ? -1 : 1));
}
