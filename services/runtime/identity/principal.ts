import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { isId } from "../ids/id.ts";

/**
 * Freezes a principal and all within, so that it can be shared by all requests
 * that present the same credential.
 */
export function freezePrincipal(principal: Principal): Principal {
  Object.freeze(principal.scopes);
  Object.freeze(principal.tools);
  if (principal.expiresAt !== undefined) Object.freeze(principal.expiresAt);
  return Object.freeze(principal);
}

/** When a principal's credential ends, in milliseconds since the epoch; Infinity for never. */
export function expiryMs(principal: { readonly expiresAt?: Timestamp | undefined }): number {
  return principal.expiresAt === undefined ? Number.POSITIVE_INFINITY : timestampMs(principal.expiresAt);
}

/** The principal as a text for headers and claims: base64url of its binary form. Made once for one that is frozen. */
export function encodePrincipal(principal: Principal): string {
  const known = encoded.get(principal);
  if (known !== undefined) return known;
  const text = Buffer.from(toBinary(PrincipalSchema, principal)).toString("base64url");
  if (Object.isFrozen(principal)) encoded.set(principal, text);
  return text;
}

const encoded = new WeakMap<Principal, string>();

/**
 * Holds what another process says to be a principal: a role that this build
 * does not know must not count as one that is above all others.
 *
 * @throws TypeError if it names nobody, or no kind, org or role that there is
 */
export function assertPrincipal({ kind, subject, orgId, role }: Principal): void {
  const isKnown = PrincipalKind[kind] !== undefined && Role[role] !== undefined;
  if (!isKnown || kind === PrincipalKind.UNSPECIFIED || role === Role.UNSPECIFIED) {
    throw new TypeError("a principal has a kind and a role that this build knows");
  }
  if (subject === "" || !isId("org", orgId)) throw new TypeError("a principal has a subject and an org");
}

/** Reads what `encodePrincipal` wrote, frozen. Throws if it is none, or names nobody. */
export function decodePrincipal(text: string): Principal {
  const principal = fromBinary(PrincipalSchema, Buffer.from(text, "base64url"));
  assertPrincipal(principal);
  return freezePrincipal(principal);
}
