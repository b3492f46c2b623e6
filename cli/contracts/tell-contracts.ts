import {
  type ComparedContract,
  ContractState,
  type FieldUse,
  type JsonObject,
  jsonOf,
  type PushedContracts,
} from "@cadre/sdk";
import { printLine, printNotice } from "../output.ts";
import type { ContractFile } from "./read-contracts.ts";

/** Whether a contract breaks who holds to an earlier version. */
export function isBroken({ state }: ComparedContract): boolean {
  return state === ContractState.BREAKS;
}

/** Whether a contract is registered as it is. */
export function isSame({ state }: ComparedContract): boolean {
  return state === ContractState.SAME;
}

/** Prints how contracts differ from what is registered, for people. */
export function tellDifferences(contracts: readonly ComparedContract[], files: readonly ContractFile[]): void {
  const changed = new Set(contracts.filter((contract) => !isSame(contract)).map(({ path }) => path));
  for (const { path, subject, state, incompatibilities, removedFields } of contracts) {
    switch (state) {
      case ContractState.SAME:
        break;
      case ContractState.BREAKS: {
        // What an imported file breaks is told with that file.
        const own = incompatibilities.filter(({ file }) => file === path || !changed.has(file));
        const imported = new Set(incompatibilities.filter((one) => !own.includes(one)).map(({ file }) => file));
        printLine(`${subject}: breaks${imported.size === 0 ? "" : ` by ${[...imported].join(", ")}`}`);
        for (const { message } of own) printLine(`  ${message}`);
        tellRemoved(removedFields);
        break;
      }
      case ContractState.FOLLOWS: {
        const imported = files.find((file) => file.path === path)?.imports.find((name) => changed.has(name));
        printLine(`${subject}: follows a change of ${imported ?? "what it imports"}`);
        break;
      }
      default:
        printLine(`${subject}: ${nameOf(state)}`);
        tellRemoved(removedFields);
    }
  }
  if (changed.size === 0) printNotice("Everything is registered as it is here.");
}

/** Prints who still reads fields that are removed. */
function tellRemoved(fields: readonly FieldUse[]): void {
  for (const { typeName, field, message } of fields) printLine(`  ${typeName}: ${field} is removed; ${message}`);
}

/** A set as JSON. */
export function setToJson({ contracts, digest }: PushedContracts) {
  return {
    digest,
    contracts: contracts.map(({ path, subject, state, version, schemaId, incompatibilities, removedFields }) => ({
      path,
      subject,
      state: nameOf(state),
      version,
      ...(schemaId === 0 ? {} : { schema_id: schemaId }),
      ...(incompatibilities.length === 0 ? {} : { messages: incompatibilities.map(({ message }) => message) }),
      ...fieldUseToJson([...incompatibilities.flatMap(({ fieldUse }) => fieldUse ?? []), ...removedFields]),
    })),
  };
}

function fieldUseToJson(fields: readonly FieldUse[]): { readonly field_use?: JsonObject[] } {
  return fields.length === 0 ? {} : { field_use: fields.map(jsonOf) };
}

function nameOf(state: ContractState): string {
  return ContractState[state].toLowerCase();
}
