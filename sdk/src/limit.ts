import { IdentityService, type Limit } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type Caller, type CallOptions, required } from "./caller.ts";

/** The limits of the org. */
export interface Limits {
  /** Lists the limits, by name. */
  list(options?: CallOptions): Promise<readonly Limit[]>;
  /** Sets a limit; wants the role `admin`. @throws CadreError `LIMIT_NOT_FOUND`, `INVALID_ARGUMENT` above its maximum */
  set(name: string, value: bigint | number, options?: CallOptions): Promise<Limit>;
}

/** Creates the limits of a client. */
export function createLimits(caller: Caller): Limits {
  const { method } = IdentityService;
  return {
    async list(options) {
      const { limits } = await caller.unary(method.listLimits, {}, options);
      return limits;
    },
    async set(name, value, options) {
      const { limit } = await caller.unary(method.setLimit, { name, value: BigInt(value) }, options);
      return required(limit, "the limit");
    },
  };
}
