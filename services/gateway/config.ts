import { defineSettings, type SettingsValues, setting } from "../runtime/config/settings.ts";
import { edgeLimits } from "../runtime/edge/edge-limits.ts";
import { isAddressBlock } from "./http/address-block.ts";
import { isHostName } from "./http/host-name.ts";
import { isOrigin } from "./http/origin.ts";

/** What the gateway can be told. */
export const gatewaySettings = defineSettings({
  CADRE_HOST: {
    schema: setting.text("127.0.0.1"),
    description: "The address that the public port listens on. Default 127.0.0.1, this machine alone.",
  },
  CADRE_PORT: {
    schema: setting.integer(8010, { min: 0, max: 65_535 }),
    description: "The public port; 0 takes a free one. Default 8010.",
  },
  CADRE_ADMIN_PORT: {
    schema: setting.integer(8011, { min: 0, max: 65_535 }),
    description: "The port of 127.0.0.1 for metrics, health and profiles; 0 takes a free one. Default 8011.",
  },
  CADRE_CORS_ORIGINS: {
    schema: setting.list().refine((origins) => origins.every(isOrigin), {
      message: "must be origins such as https://app.example.com, separated by commas",
    }),
    description: "The exact origins whose pages may call from a browser, separated by commas. Default none.",
  },
  CADRE_TLS_CERT_FILE: {
    schema: setting.optionalText(),
    description: "The certificate chain of the public port, PEM. Default none: plain text.",
  },
  CADRE_TLS_KEY_FILE: {
    schema: setting.optionalText(),
    description: "The private key of the public port, PEM, 0600. Needed with the certificate.",
  },
  CADRE_TRUSTED_PROXIES: {
    schema: setting.list().refine((blocks) => blocks.every(isAddressBlock), {
      message: "must be addresses or CIDR blocks, separated by commas",
    }),
    description:
      "Addresses or CIDR blocks of proxies whose X-Forwarded-For is believed, separated by commas. Default none.",
  },
  CADRE_AUTHORITIES: {
    schema: setting.list().refine((names) => names.every(isHostName), {
      message: "must be host names without port, such as cadre.example.com, separated by commas",
    }),
    description:
      "The host names that callers use, without port, separated by commas; needed in production with a public CADRE_HOST. Default: on a loopback address localhost, *.localhost, 127.0.0.0/8 and [::1] with the own port, which stay; on another address any IP address.",
  },
  CADRE_MAX_CONNECTIONS: {
    schema: setting.integer(edgeLimits.maxConnections, { min: 1, max: 100_000 }),
    description: `Connections to the public port at once. Default ${edgeLimits.maxConnections}.`,
  },
  CADRE_MAX_CONNECTIONS_PER_SOURCE: {
    schema: setting.integer(edgeLimits.maxConnectionsPerSource, { min: 1, max: 100_000 }),
    description: `Of these, from one address. Default ${edgeLimits.maxConnectionsPerSource}.`,
  },
});

/** The parsed settings. */
export type GatewayConfig = SettingsValues<typeof gatewaySettings>;
