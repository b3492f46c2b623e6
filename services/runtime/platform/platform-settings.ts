import { z } from "zod";
import { defineSettings, setting } from "../config/settings.ts";

/** `host:port` places, separated by commas. */
const addresses = () =>
  setting.list().refine((items) => items.every((item) => /^(\[[0-9a-f:]+\]|[a-z0-9.-]+):\d{1,5}$/i.test(item)), {
    message: "must be host:port, several separated by commas",
  });

/** What every process of Cadre can be told. */
export const platformSettings = defineSettings({
  CADRE_MODE: {
    schema: setting.oneOf(["embedded", "production"], "embedded"),
    description: "`production` refuses to start unsafe. Default embedded.",
  },
  CADRE_DATA: {
    schema: setting.text(".cadre"),
    description: "The data directory. Default .cadre in the working directory.",
  },
  CADRE_PAGE_TOKEN_KEY_FILE: {
    schema: setting.optionalText(),
    description:
      "A file with the key that page tokens are sealed with, 64 hexadecimal digits, 0600; the same for all processes that answer together. Default: <data>/keys/page-token.key, made at first start.",
  },
  CADRE_DATABASE_URL: {
    schema: setting
      .optionalText()
      .refine((url) => url === undefined || /^postgres(ql)?:\/\//.test(url), "must begin with postgres://"),
    description:
      "The PostgreSQL to use, postgres://user:password@host:port/database. Default: a server of its own in the data directory.",
    secret: true,
  },
  CADRE_BUS: {
    schema: setting.oneOf(["postgres", "kafka"], "postgres"),
    description: "Where facts go: postgres, or kafka with CADRE_KAFKA_BROKERS. Default postgres.",
  },
  CADRE_REGISTRY_URL: {
    schema: z.url({ protocol: /^https?$/, error: "must be an http or https URL" }).optional(),
    description:
      "The schema registry whose ids events carry, by Confluent's REST API, for example http://127.0.0.1:8010/registry; the contracts are registered there first (cadre contracts push). Default: ids made from the contracts of the build.",
  },
  CADRE_REGISTRY_CREDENTIALS_FILE: {
    schema: setting.optionalText(),
    description:
      "A file with name:password for that registry; of Cadre's own the password is an API key. Read for each request. Default: none.",
  },
  CADRE_LOG_LEVEL: {
    schema: setting.oneOf(["error", "warn", "info", "debug"], "info"),
    description: "The least severe log lines that are kept: error, warn, info or debug. Default info.",
  },
  CADRE_OTLP_ENDPOINT: {
    schema: z.url({ protocol: /^https?$/, error: "must be an http or https URL" }).optional(),
    description: "Where traces are sent by OTLP over HTTP, for example http://127.0.0.1:4318. Default: traces are off.",
  },
  CADRE_TRACE_SAMPLE_RATIO: {
    schema: z
      .string()
      .transform(Number)
      .refine((ratio) => ratio >= 0 && ratio <= 1, "must be 0 to 1")
      .default(1),
    description: "The share of requests that are traced, 0 to 1. Default 1.",
  },
  CADRE_REFLECTION: {
    schema: z.enum(["true", "false"], "must be true or false").optional(),
    description: "Whether gRPC server reflection answers. Default true, in production false.",
  },
  CADRE_MESH_LISTEN: {
    schema: setting.text("127.0.0.1:0"),
    description: "Where a service of its own process listens for its peers. Default a free port of 127.0.0.1.",
  },
  CADRE_MESH_CREDENTIALS: { schema: addresses(), description: "Where credentials is reached, host:port." },
  CADRE_MESH_TOOLS: {
    schema: addresses(),
    description: "Where tools is reached, host:port, several separated by commas.",
  },
  CADRE_MESH_REGISTRY: {
    schema: addresses(),
    description: "Where registry is reached, host:port, several separated by commas.",
  },
  CADRE_MESH_ORCHESTRATOR: {
    schema: addresses(),
    description: "Where orchestrator is reached, host:port, several separated by commas.",
  },
  CADRE_MESH_EVENTS: {
    schema: addresses(),
    description: "Where events is reached, host:port, several separated by commas.",
  },
  CADRE_MESH_GATEWAY: { schema: addresses(), description: "Where the gateway is reached by its peers, host:port." },
  CADRE_MESH_CA_FILE: {
    schema: setting.optionalText(),
    description:
      "The mesh's certificate authority, PEM. Needed with the two below for services of their own processes.",
  },
  CADRE_MESH_CERT_FILE: { schema: setting.optionalText(), description: "This service's mesh certificate, PEM." },
  CADRE_MESH_KEY_FILE: { schema: setting.optionalText(), description: "This service's mesh key, PEM, 0600." },
});
