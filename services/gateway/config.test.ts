import { expect, test } from "vitest";
import { ConfigurationError, parseSettings } from "../runtime/config/settings.ts";
import { gatewaySettings } from "./config.ts";

test("nothing set is this machine alone, in plain text, for no other origin", () => {
  expect(parseSettings(gatewaySettings, {})).toMatchObject({
    CADRE_HOST: "127.0.0.1",
    CADRE_PORT: 8010,
    CADRE_ADMIN_PORT: 8011,
    CADRE_CORS_ORIGINS: [],
    CADRE_TLS_CERT_FILE: undefined,
    CADRE_TRUSTED_PROXIES: [],
    CADRE_MAX_CONNECTIONS: 2_000,
  });
});

test.each([
  ["CADRE_CORS_ORIGINS", "*"],
  ["CADRE_CORS_ORIGINS", "null"],
  ["CADRE_CORS_ORIGINS", "https://app.example.com/"],
  ["CADRE_CORS_ORIGINS", "https://*.example.com"],
  ["CADRE_CORS_ORIGINS", "app.example.com"],
  ["CADRE_PORT", "65536"],
  ["CADRE_PORT", "http"],
  ["CADRE_TRUSTED_PROXIES", "proxy.example.com"],
  ["CADRE_TRUSTED_PROXIES", "10.0.0.0/33"],
])("%s=%s is refused", (name, value) => {
  expect(() => parseSettings(gatewaySettings, { [name]: value })).toThrow(ConfigurationError);
});

test("origins and proxies are lists", () => {
  const values = parseSettings(gatewaySettings, {
    CADRE_CORS_ORIGINS: "https://a.example, http://localhost:5173",
    CADRE_TRUSTED_PROXIES: "10.0.0.0/8, ::1",
  });
  expect(values.CADRE_CORS_ORIGINS).toEqual(["https://a.example", "http://localhost:5173"]);
  expect(values.CADRE_TRUSTED_PROXIES).toEqual(["10.0.0.0/8", "::1"]);
});
