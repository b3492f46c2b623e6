import type { DescMethod } from "@bufbuild/protobuf";
import { getOption, hasOption } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { authz, Exposure, exposure, Relation } from "@cadre/gen/cadre/options/v1/options_pb";

/** What a method's contract demands of its caller. */
export type AccessRule =
  /** Anyone may call, without a credential. */
  | { readonly kind: "open" }
  /** Nobody may call: the contract says nothing, or admits no caller. */
  | { readonly kind: "refused" }
  | {
      readonly kind: "guarded";
      /** The services that may call; `undefined` if the caller is judged by its principal alone. */
      readonly callers: ReadonlySet<string> | undefined;
      /** The least role of the principal; `undefined` if no principal is needed. */
      readonly leastRole: Role | undefined;
      /** Whether the principal's org must run the installation. */
      readonly operator: boolean;
      /** The scope that the credential must carry; empty for none. */
      readonly scope: string;
    };

/** The rules of all methods, each read from its descriptor once. */
export interface AccessRules {
  of(method: DescMethod): AccessRule;
}

/** Services that are not ours, have no options, and are open to anyone by their own definition. */
const openByProtocol: ReadonlySet<string> = new Set(["grpc.health.v1.Health"]);

export interface AccessRulesOptions {
  /**
   * Full names of further services without our options that anyone may call,
   * for example reflection outside of production. Health is always open.
   */
  readonly openServices?: readonly string[];
}

/** Reads the rules from the contract. A method that declares none is refused to all. */
export function accessRules(options: AccessRulesOptions = {}): AccessRules {
  const openServices = new Set([...openByProtocol, ...(options.openServices ?? [])]);
  const rules = new WeakMap<DescMethod, AccessRule>();
  return {
    of(method) {
      let rule = rules.get(method);
      if (rule === undefined) {
        rule = openServices.has(method.parent.typeName) ? { kind: "open" } : readRule(method);
        rules.set(method, rule);
      }
      return rule;
    },
  };
}

const leastRoles: Readonly<Record<Relation, Role | undefined>> = {
  [Relation.UNSPECIFIED]: undefined,
  [Relation.ANYONE]: undefined,
  [Relation.MEMBER]: Role.MEMBER,
  [Relation.DEVELOPER]: Role.DEVELOPER,
  [Relation.ADMIN]: Role.ADMIN,
  [Relation.OWNER]: Role.OWNER,
  [Relation.OPERATOR]: Role.OWNER,
};

function readRule(method: DescMethod): AccessRule {
  if (!hasOption(method, authz)) return { kind: "refused" };
  const { relation, callers, scope } = getOption(method, authz);
  const isPublic = getOption(method.parent, exposure) === Exposure.PUBLIC;
  const leastRole = leastRoles[relation];
  if (!(relation in leastRoles) || relation === Relation.UNSPECIFIED) return { kind: "refused" };
  // An internal method admits the services that it names and no others.
  if (!isPublic && callers.length === 0) return { kind: "refused" };
  // A scope is carried by a principal; without one the contract contradicts itself.
  if (leastRole === undefined && scope !== "") return { kind: "refused" };
  if (leastRole === undefined && callers.length === 0) return { kind: "open" };
  return {
    kind: "guarded",
    callers: callers.length === 0 ? undefined : new Set(callers),
    leastRole,
    operator: relation === Relation.OPERATOR,
    scope,
  };
}
