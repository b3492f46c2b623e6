import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
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

/** The principal as a text for headers and claims: base64url of its binary form. */
export function encodePrincipal(principal: Principal): string {
  return Buffer.from(toBinary(PrincipalSchema, principal)).toString("base64url");
}

/** Reads what `encodePrincipal` wrote, frozen. Throws if it is none, or names nobody. */
export function decodePrincipal(text: string): Principal {
  const principal = fromBinary(PrincipalSchema, Buffer.from(text, "base64url"));
  if (principal.subject === "" || !isId("org", principal.orgId) || Role[principal.role] === undefined) {
    throw new TypeError("a principal has a subject, an org and a role");
  }
  return freezePrincipal(principal);
}
