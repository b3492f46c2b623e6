import { AppError } from "../errors/app-error.ts";

/** Why a credential was refused. Written to the audit log, told to nobody else. */
export type RefusalCode =
  | "NO_CREDENTIAL"
  | "MALFORMED"
  | "TOO_LONG"
  | "CHECKSUM"
  | "UNKNOWN"
  | "EXPIRED"
  | "REVOKED"
  | "ORG_DELETED"
  | "NOT_YET_VALID"
  | "WRONG_ISSUER"
  | "WRONG_AUDIENCE"
  | "WRONG_TYPE"
  | "CLAIM_MISSING"
  | "CLAIM_INVALID"
  | "ALG_NOT_ALLOWED"
  | "HEADER_NOT_ALLOWED"
  | "UNKNOWN_KEY"
  | "SIGNATURE"
  | "WRONG_SERVICE"
  | "REFUSED"
  | "NOT_CHECKED";

/** The one text for everything that can be wrong with a credential: what is wrong would help an attacker only. */
export const refusedText = "a valid credential is required";

export interface RefusalOptions {
  readonly cause?: unknown;
  /** Who it claimed to be, as far as that was established: a key's id, or a JWT's issuer and subject. */
  readonly actor?: string;
  /** The org of the credential, if it was found. */
  readonly orgId?: string;
  /** Whether the process that refused it has written it to the audit log. */
  readonly audited?: boolean;
}

/** The true reason why nobody was recognised: the `cause` of the failure, which is never sent. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly code: RefusalCode;
  readonly actor: string;
  readonly orgId: string;
  readonly audited: boolean;

  constructor(code: RefusalCode, options: RefusalOptions = {}) {
    super(code, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.actor = options.actor ?? "";
    this.orgId = options.orgId ?? "";
    this.audited = options.audited ?? false;
  }
}

/** The failure that a refused credential is answered with. */
export function refused(code: RefusalCode, options: RefusalOptions = {}): AppError {
  return new AppError("UNAUTHENTICATED", refusedText, { cause: new Refusal(code, options) });
}
