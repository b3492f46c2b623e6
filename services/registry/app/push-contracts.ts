import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { AppError } from "../../runtime/errors/app-error.ts";
import {
  assertContractSet,
  type ComparedContract,
  type Contract,
  type ContractSet,
  type ContractState,
  digestOfSet,
  isChanged,
  subjectsOf,
} from "../domain/contract-set.ts";
import { type FieldName, type FieldUse, removedFields } from "../domain/field-use.ts";
import { incompatibleSet } from "../domain/incompatible.ts";
import type { RegistryChange } from "../store/registry-store.ts";
import {
  type AddedVersion,
  addVersion,
  type Force,
  type Origin,
  type Registrant,
  type Room,
  readRoom,
} from "./add-version.ts";
import type { RegistryDeps } from "./deps.ts";
import { findFieldUses } from "./find-field-use.ts";
import { schemaOf } from "./find-version.ts";

/** Removed fields that are looked up for a contract. */
const maxRemoved = 100;

/**
 * Registers contracts in one transaction: all, or nothing.
 *
 * @param force registers them whatever they break
 * @throws AppError INVALID_ARGUMENT, INVALID_SCHEMA, SCHEMA_INCOMPATIBLE, REGISTRY_READ_ONLY, LIMIT_EXCEEDED
 */
export async function pushContracts(
  { store, limits }: RegistryDeps,
  registrant: Registrant,
  contracts: readonly Contract[],
  force?: Force,
): Promise<ContractSet> {
  assertContractSet(contracts);
  const room = await readRoom(limits, registrant.orgId);
  const origin = { by: registrant.subject, reason: force?.reason ?? "" };
  return store.change(registrant.orgId, contracts.flatMap(subjectsOf), async (change) => {
    const set = await addSet(change, contracts, room, origin);
    const broken = set.contracts.filter(({ state }) => state === "breaks");
    if (broken.length > 0 && force === undefined) throw incompatibleSet(broken);
    for (const { subject } of broken) await force?.onForced(subject);
    return set;
  });
}

/** Says what `pushContracts` would do, by doing it and taking it back. Throws the same, but for SCHEMA_INCOMPATIBLE. */
export async function compareContracts(
  { store, limits }: RegistryDeps,
  registrant: Registrant,
  contracts: readonly Contract[],
): Promise<ContractSet> {
  assertContractSet(contracts);
  const room = await readRoom(limits, registrant.orgId);
  const origin = { by: registrant.subject, reason: "" };
  const set = await store.rehearse(registrant.orgId, contracts.flatMap(subjectsOf), (change) =>
    addSet(change, contracts, room, origin),
  );
  return withoutNewIds(set);
}

/** A set that was taken back: the ids that it had were nobody's. */
export function withoutNewIds(set: ContractSet): ContractSet {
  return { ...set, contracts: set.contracts.map((one) => (one.state === "same" ? one : { ...one, schemaId: 0 })) };
}

/** Adds all contracts within a transaction, whatever they break. Throws as `addVersion`, with the file. */
export async function addSet(
  change: RegistryChange,
  contracts: readonly Contract[],
  room: Room,
  origin: Origin,
): Promise<ContractSet> {
  const compared: ComparedContract[] = [];
  const members: { readonly subject: string; readonly contentDigest: Uint8Array }[] = [];
  /** By the path that others import. */
  const versions = new Map<string, number>();
  for (const contract of contracts) {
    const references = contract.imports.map((path) => ({
      name: path,
      subject: path,
      version: versions.get(path) ?? -1,
    }));
    const { path: name, schema } = contract;
    const input = { type: "PROTOBUF" as const, schema, references, normalize: false, name };
    for (const subject of subjectsOf(contract)) {
      const added = await addVersion(change, subject, input, room, origin).catch((thrown: unknown) => {
        throw inFile(contract.path, thrown);
      });
      const { row, findings, read } = added;
      const { version, schemaId } = row;
      if (subject === contract.path) versions.set(contract.path, version);
      const state = await stateOf(change, added);
      const base = added.previous?.version ?? 0;
      const removed = await findRemoved(change, added);
      compared.push({ path: contract.path, subject, state, base, version, schemaId, findings, removed });
      members.push({ subject, contentDigest: read.contentDigest });
    }
  }
  const digest = digestOfSet(members);
  await change.markPushed(compared.filter(isChanged), digest);
  return { contracts: compared, digest };
}

async function stateOf(change: RegistryChange, added: AddedVersion): Promise<ContractState> {
  const { isNew, previous, findings, schema } = added;
  if (!isNew) return "same";
  if (findings.length > 0) return "breaks";
  if (previous === undefined) return "new";
  const before = (await schemaOf(change, previous)).descriptor;
  const isItself = Buffer.compare(before ?? Buffer.alloc(0), schema.descriptor ?? Buffer.alloc(0)) === 0;
  return isItself ? "follows" : "changed";
}

/** Who reads the fields that a version removes, but for those that findings are about. */
async function findRemoved(
  change: RegistryChange,
  { previous, findings, schema }: AddedVersion,
): Promise<readonly FieldUse[]> {
  const before = previous && (await schemaOf(change, previous)).descriptor;
  if (before === undefined || schema.descriptor === undefined) return [];
  const fields = removedFields(
    fromBinary(FileDescriptorProtoSchema, before),
    fromBinary(FileDescriptorProtoSchema, schema.descriptor),
  );
  const isTold = (name: FieldName): boolean =>
    findings.some(({ typeName, field }) => typeName === name.typeName && field === name.field);
  const untold = fields.filter((name) => !isTold(name));
  return findFieldUses(change.fieldReads, untold.slice(0, maxRemoved));
}

/** A failure that says in which file of the set it is. */
function inFile(path: string, thrown: unknown): unknown {
  if (!(thrown instanceof AppError) || thrown.reason !== "INVALID_SCHEMA") return thrown;
  const message = `${path}: ${thrown.message}`;
  const violations = thrown.violations.map((violation) => ({ ...violation, message: `${path}: ${violation.message}` }));
  return new AppError(thrown.reason, message, { cause: thrown, violations });
}
