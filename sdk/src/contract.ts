import {
  type CompareContractsResponse,
  ContractService,
  type PushContractsResponse,
  type VersionOrigin,
} from "@cadre/gen/cadre/registry/v1/contract_pb";
import type { Caller, CallOptions } from "./caller.ts";
import { type ContractInit, toContract } from "./contract-init.ts";
import { createReviews, type Reviews } from "./review.ts";

/** How each contract stands under each of its subjects, and the digest of the set. */
export type PushedContracts = Omit<PushContractsResponse, "$typeName" | "$unknown">;

/** The org's contracts, as they are in files. Reading wants the scope `registry.read`, changing `registry.write`. */
export interface Contracts {
  /**
   * Registers files together, all or nothing; pushing again changes nothing.
   * Wants the role `developer`.
   *
   * @param contracts at most 500, each after those that it imports
   * @throws CadreError `INVALID_SCHEMA`, `SCHEMA_INCOMPATIBLE`, `REGISTRY_READ_ONLY`, `LIMIT_EXCEEDED`
   */
  push(contracts: readonly ContractInit[], options?: CallOptions): Promise<PushedContracts>;
  /** The same whatever it breaks, with the reason in the audit log; wants the role `admin`. */
  force(contracts: readonly ContractInit[], reason: string, options?: CallOptions): Promise<PushedContracts>;
  /** Says what `push` would do, and what it would break. @throws CadreError `INVALID_SCHEMA` */
  compare(contracts: readonly ContractInit[], options?: CallOptions): Promise<PushedContracts>;
  /** Who registered the versions of a subject, when and, if they were forced, why. @throws CadreError `SUBJECT_NOT_FOUND` */
  history(subject: string, options?: CallOptions): Promise<readonly VersionOrigin[]>;
  /** Pushes that break and wait for an admin. */
  readonly reviews: Reviews;
}

const pageSize = 1_000;

/** Creates the contracts of a client. */
export function createContracts(caller: Caller): Contracts {
  const { method } = ContractService;
  return {
    async push(contracts, options) {
      return toPushed(await caller.unary(method.pushContracts, { contracts: contracts.map(toContract) }, options));
    },
    async force(contracts, reason, options) {
      const request = { contracts: contracts.map(toContract), reason };
      return toPushed(await caller.unary(method.forceContracts, request, options));
    },
    async compare(contracts, options) {
      return toPushed(await caller.unary(method.compareContracts, { contracts: contracts.map(toContract) }, options));
    },
    async history(subject, options) {
      const all: VersionOrigin[] = [];
      for (;;) {
        const request = { subject, offset: all.length, limit: pageSize };
        const { versions } = await caller.unary(method.listSubjectHistory, request, options);
        all.push(...versions);
        if (versions.length < pageSize) return all;
      }
    },
    reviews: createReviews(caller),
  };
}

function toPushed({
  contracts,
  digest,
}: Pick<PushContractsResponse | CompareContractsResponse, "contracts" | "digest">): PushedContracts {
  return { contracts, digest };
}
