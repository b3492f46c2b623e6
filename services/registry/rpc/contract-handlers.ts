import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ContractCheckService, ContractService } from "@cadre/gen/cadre/registry/v1/contract_pb";
import type { AuditSink } from "../../runtime/audit/audit-sink.ts";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import type { RegistryDeps } from "../app/deps.ts";
import { findUnregistered } from "../app/find-unregistered.ts";
import { compareContracts, pushContracts } from "../app/push-contracts.ts";
import { listHistory } from "../app/read-registry.ts";
import { forceFor, orgOf, registrantOf } from "./caller.ts";
import { fromSet } from "./convert-contract.ts";
import { reviewHandlers } from "./review-handlers.ts";

const defaultLimit = 1_000;
/** Contracts that are not compiled anew each time a service asks for them; some builds of some tens of files. */
const maxKnown = 1_000;

/**
 * The contracts of the caller's org.
 *
 * @param audit where it is written, before it is committed, that a schema is forced
 */
export function contractHandlers(deps: RegistryDeps, audit: AuditSink): Implementation<typeof ContractService> {
  return implement(ContractService, {
    async pushContracts({ contracts }, context) {
      return fromSet(await pushContracts(deps, registrantOf(context), contracts));
    },
    async forceContracts({ contracts, reason }, context) {
      const force = forceFor(context, audit, reason);
      return fromSet(await pushContracts(deps, registrantOf(context), contracts, force));
    },
    async compareContracts({ contracts }, context) {
      return fromSet(await compareContracts(deps, registrantOf(context), contracts));
    },
    async listSubjectHistory({ subject, offset, limit }, context) {
      const history = await listHistory(deps, orgOf(context), subject, { offset, limit: limit || defaultLimit });
      return {
        versions: history.map(({ registeredAt, reviewId, ...origin }) => ({
          ...origin,
          registeredAt: timestampFromDate(registeredAt),
          reviewId: reviewId === undefined ? "" : fromUuid("rev", reviewId),
        })),
      };
    },
    ...reviewHandlers(deps, audit),
  });
}

/**
 * Says to the platform's services what of them is not registered.
 *
 * @param operatorOrg the UUID of the org that the installation is of
 */
export function contractCheckHandlers(
  deps: Pick<RegistryDeps, "store">,
  operatorOrg: () => Promise<string>,
): Implementation<typeof ContractCheckService> {
  const known = new BoundedMap<string, Uint8Array>(maxKnown);
  return implement(ContractCheckService, {
    async findUnregistered({ contracts }) {
      const { absent, different } = await findUnregistered(deps, known, await operatorOrg(), contracts);
      return { absent: [...absent], different: [...different] };
    },
  });
}
