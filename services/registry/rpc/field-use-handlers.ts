import { timestampDate } from "@bufbuild/protobuf/wkt";
import { FieldUseService } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import type { RegistryDeps } from "../app/deps.ts";
import { reportFieldReads } from "../app/report-field-reads.ts";

/**
 * Hears from the platform's consumers what their handlers read.
 *
 * @param operatorOrg the UUID of the org that the installation is of
 */
export function fieldUseHandlers(
  deps: Pick<RegistryDeps, "store">,
  operatorOrg: () => Promise<string>,
): Implementation<typeof FieldUseService> {
  return implement(FieldUseService, {
    async reportFieldReads({ reads }) {
      const kept = reads.flatMap(({ lastReadAt, ...read }) =>
        lastReadAt === undefined ? [] : [{ ...read, lastReadAt: timestampDate(lastReadAt) }],
      );
      await reportFieldReads(deps, await operatorOrg(), kept);
      return {};
    },
  });
}
