/** A JWT by what it says of itself. */
export interface TokenKey {
  /** Its `iss`. */
  readonly issuer: string;
  /** Its `jti`. */
  readonly tokenId: string;
}

/** The longest that a JWT may be valid from now, so that a revocation need not be remembered for ever. */
export const maxTokenLifetimeMs = 400 * 24 * 3_600_000;

/**
 * A JWT ends in minutes, what was started with it runs for up to a day: so long
 * after its end its user may still act by what runs. New calls need a new token.
 */
export const userGraceMs = 24 * 3_600_000;

/** Clocks of the issuer, of this machine and of the database may differ that much, one after the other. */
const skewMs = 5 * 60_000;

/** Until when it matters that a JWT was revoked that ends at a time. */
export function rememberedUntil(expiresAtMs: number): Date {
  return new Date(expiresAtMs + userGraceMs + skewMs);
}

/** What stands between issuer and user in a principal's subject; no issuer has it. */
export const subjectSeparator = "|";

/** What the subjects of an issuer's users begin with. */
export function subjectPrefix(issuer: string): string {
  return `${issuer}${subjectSeparator}`;
}

/** The issuer in the subject of a user; `undefined` for what is none. */
export function issuerOf(subject: string): string | undefined {
  const end = subject.indexOf(subjectSeparator);
  return end === -1 ? undefined : subject.slice(0, end);
}
