import { defineSettings, type SettingsValues, setting } from "../runtime/config/settings.ts";
import { jwtIssuersSchema } from "./app/jwt-issuer.ts";

/** Settings of the credentials service. */
export const credentialsSettings = defineSettings({
  CADRE_CREDENTIALS_HMAC_KEY_FILE: {
    schema: setting.optionalText(),
    description:
      "A file with the key that API keys are stored under, 64 hexadecimal digits, 0600. Default: <data>/keys/credentials.key, made at first start.",
  },
  CADRE_JWT_ISSUERS: {
    schema: jwtIssuersSchema,
    description:
      "Issuers whose JWTs are accepted, a JSON array of {issuer, audience, jwks_url, algorithms, typ, org_claim, orgs, role_claim, scope_claim}. Default: none.",
  },
});

/** What the settings say. */
export type CredentialsConfig = SettingsValues<typeof credentialsSettings>;
