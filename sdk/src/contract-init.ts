import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ContractSchema } from "@cadre/gen/cadre/registry/v1/contract_pb";

/** A `.proto` file, to be registered under its path. */
export interface ContractInit {
  /** What others import it by, for example `shop/v1/order.proto`. */
  readonly path: string;
  /** Its text; at most 1 MiB. */
  readonly schema: string;
  /** The paths that it imports, without `google/protobuf/…`; each stands before it in the set. */
  readonly imports: readonly string[];
  /** Further subjects, for example `orders-value` for what the topic `orders` carries. */
  readonly subjects?: readonly string[];
}

/** A file for the wire. */
export function toContract({ path, schema, imports, subjects = [] }: ContractInit) {
  return { path, schema, imports: [...imports], subjects: [...subjects] } satisfies MessageInitShape<
    typeof ContractSchema
  >;
}
