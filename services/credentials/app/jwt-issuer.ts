import { z } from "zod";
import { subjectSeparator } from "../domain/token.ts";

/** A signature algorithm that an issuer may use. */
const algorithm = z.enum(["EdDSA", "ES256", "RS256"]);

const jwksUrl = z.url({ protocol: /^https?$/ }).refine((text) => {
  const { protocol, hostname } = new URL(text);
  return protocol === "https:" || hostname === "127.0.0.1" || hostname === "localhost" || hostname === "[::1]";
}, "jwks_url must be https unless it is on this machine");

const issuerSchema = z
  .strictObject({
    issuer: z
      .string()
      .min(1)
      .max(256)
      .refine((text) => !text.includes(subjectSeparator), "must be without |"),
    audience: z.string().min(1).max(256),
    jwks_url: jwksUrl,
    algorithms: z.array(algorithm).min(1).default(["EdDSA", "ES256", "RS256"]),
    typ: z.string().min(1).max(32).default("at+jwt"),
    org_claim: z.string().min(1).max(256).default("org_id"),
    orgs: z
      .array(z.string().regex(/^org_[0-9a-hjkmnp-tv-z]{26}$/))
      .min(1)
      .optional(),
    role_claim: z.string().min(1).max(256).default("role"),
    scope_claim: z.string().min(1).max(256).default("scope"),
  })
  .readonly();

/**
 * An issuer whose JWTs are accepted, as `CADRE_JWT_ISSUERS` lists it:
 * - `issuer`, `audience`: what `iss` and `aud` must be.
 * - `jwks_url`: where its keys are; https, or http on this machine.
 * - `algorithms`: of `EdDSA`, `ES256`, `RS256`; all three unless said.
 * - `typ`: the token's type, `at+jwt` (RFC 9068) unless said. An ID token has another.
 * - `org_claim`: the claim with the org's id, `org_id` unless said.
 * - `orgs`: the orgs that it speaks for; every org unless said, so say it where one issuer is one customer's.
 * - `role_claim`: the claim with `member`, `developer`, `admin` or `owner`, `role` unless said; a token without it is a member's.
 * - `scope_claim`: the claim with the scopes, `scope` unless said, a text with blanks between or an array; none without it.
 */
export type JwtIssuer = z.infer<typeof issuerSchema>;

/** Parses `CADRE_JWT_ISSUERS`: a JSON array of issuers, each `iss` once. */
export const jwtIssuersSchema: z.ZodType<readonly JwtIssuer[], string | undefined> = z
  .string()
  .default("[]")
  .transform((text, context): unknown => {
    try {
      return JSON.parse(text);
    } catch {
      // The parser's message would repeat the text.
      context.addIssue({ code: "custom", message: "must be JSON" });
      return z.NEVER;
    }
  })
  .pipe(z.array(issuerSchema).max(32))
  .refine(
    (issuers) => new Set(issuers.map(({ issuer }) => issuer)).size === issuers.length,
    "each issuer must be there once",
  );
