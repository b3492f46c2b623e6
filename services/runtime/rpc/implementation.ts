import type { DescService } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";

/** A service of the contract with its handlers, written once and hosted on any plane. */
export interface Implementation<S extends DescService = DescService> {
  readonly service: S;
  readonly handlers: ServiceImpl<S>;
}

/** Pairs a service with its handlers, checked against each other. */
export function implement<S extends DescService>(service: S, handlers: ServiceImpl<S>): Implementation<S> {
  return { service, handlers };
}
