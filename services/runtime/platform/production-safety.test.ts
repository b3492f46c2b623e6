import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { findUnsafeSettings, type ProcessFacts } from "./production-safety.ts";

const directory = mkdtempSync(join(tmpdir(), "cadre-safety-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const strongFile = join(directory, "strong.key");
const strongKey = "5c0f1d9e7a3b48266e81f4d2c9b0a7355dd87cfe12469ab03f7e5518c4b2961d";
writeFileSync(strongFile, strongKey, { mode: 0o600 });
const openFile = join(directory, "open.key");
writeFileSync(openFile, strongKey);
chmodSync(openFile, 0o644);
const shortFile = join(directory, "short.key");
writeFileSync(shortFile, strongKey.slice(0, 32), { mode: 0o600 });
const exampleFile = join(directory, "example.key");
writeFileSync(exampleFile, "0123456789abcdef".repeat(4), { mode: 0o600 });

const safeFacts: ProcessFacts = { userId: 1000, nodeOptions: "", execArgv: [], rejectsUnauthorizedTls: true };
const safe = {
  CADRE_MODE: "production",
  CADRE_DATABASE_URL: "postgres://cadre:b3ef0d11c6@127.0.0.1:5432/cadre",
};

/** Each makes the safe configuration unsafe; the text is part of the refusal. */
const unsafe: readonly (readonly [
  string,
  { environment?: Record<string, string | undefined>; facts?: Partial<ProcessFacts> },
])[] = [
  ["CADRE_DATABASE_URL is not set", { environment: { CADRE_DATABASE_URL: undefined } }],
  ["no password", { environment: { CADRE_DATABASE_URL: "postgres://cadre@127.0.0.1/cadre" } }],
  ["well-known", { environment: { CADRE_DATABASE_URL: "postgres://x:postgres@127.0.0.1/cadre" } }],
  ["crosses hosts", { environment: { CADRE_DATABASE_URL: "postgres://x:b3ef0d11c6@db.example.com/cadre" } }],
  [
    "CADRE_KAFKA_BROKERS are reached",
    { environment: { CADRE_BUS: "kafka", CADRE_KAFKA_BROKERS: "127.0.0.1:9092, kafka.example.com:9092" } },
  ],
  [
    "CADRE_KAFKA_PASSWORD_FILE can be read",
    { environment: { CADRE_BUS: "kafka", CADRE_KAFKA_BROKERS: "[::1]:9092", CADRE_KAFKA_PASSWORD_FILE: openFile } },
  ],
  [
    "there is no TLS",
    {
      environment: {
        CADRE_HOST: "0.0.0.0",
        CADRE_AUTHORITIES: "cadre.example.com",
        CADRE_TLS_CERT_FILE: undefined,
        CADRE_TLS_KEY_FILE: undefined,
      },
    },
  ],
  [
    "CADRE_AUTHORITIES is not set",
    {
      environment: {
        CADRE_HOST: "::",
        CADRE_AUTHORITIES: undefined,
        CADRE_TLS_CERT_FILE: strongFile,
        CADRE_TLS_KEY_FILE: strongFile,
      },
    },
  ],
  ["CADRE_CORS_ORIGINS", { environment: { CADRE_CORS_ORIGINS: "https://a.example,*" } }],
  ["CADRE_MESH_CA_FILE", { environment: { CADRE_MESH_TOOLS: "127.0.0.1:9001" } }],
  ["can be read by others", { environment: { CADRE_TLS_KEY_FILE: openFile } }],
  ["less than 32 bytes", { environment: { CADRE_CREDENTIALS_HMAC_KEY_FILE: shortFile } }],
  ["holds an example", { environment: { CADRE_CREDENTIALS_HMAC_KEY_FILE: exampleFile } }],
  ["holds an example", { environment: { CADRE_PAGE_TOKEN_KEY_FILE: exampleFile } }],
  ["names no file", { environment: { CADRE_OPENAI_API_KEY_FILE: join(directory, "absent") } }],
  ["CADRE_REFLECTION", { environment: { CADRE_REFLECTION: "true" } }],
  ["CADRE_LOG_LEVEL", { environment: { CADRE_LOG_LEVEL: "debug" } }],
  ["CADRE_EGRESS_ALLOW", { environment: { CADRE_EGRESS_ALLOW: "*" } }],
  ["inspector", { facts: { nodeOptions: "--inspect=0.0.0.0" } }],
  ["inspector", { facts: { execArgv: ["--inspect-brk"] } }],
  ["--require", { facts: { nodeOptions: "--require ./x.js" } }],
  ["--require", { facts: { nodeOptions: "--max-old-space-size=512 -r ./x.js" } }],
  ["--import", { facts: { nodeOptions: "--import=./x.js" } }],
  ["--loader", { facts: { nodeOptions: "--experimental-loader ./x.js" } }],
  ["NODE_TLS_REJECT_UNAUTHORIZED", { facts: { rejectsUnauthorizedTls: false } }],
  ["root", { facts: { userId: 0 } }],
];

test("a safe configuration has no problem", () => {
  expect(findUnsafeSettings({ ...safe, CADRE_TLS_KEY_FILE: strongFile }, safeFacts)).toEqual([]);
});

test("a file named by its service is looked at, too", () => {
  const named = join(directory, "tools.key");
  writeFileSync(named, strongKey);
  chmodSync(named, 0o644);
  const environment = { ...safe, CADRE_MESH_KEY_FILE: join(directory, "{service}.key") };
  expect(findUnsafeSettings(environment, safeFacts)).toEqual(["CADRE_MESH_KEY_FILE can be read by others: chmod 600"]);
  chmodSync(named, 0o600);
  expect(findUnsafeSettings(environment, safeFacts)).toEqual([]);
});

test.each(unsafe)("refuses: %s", (text, { environment, facts }) => {
  const problems = findUnsafeSettings({ ...safe, ...environment }, { ...safeFacts, ...facts });
  expect(problems).toHaveLength(1);
  expect(problems[0]).toContain(text);
});

test("every pair is refused for both, and no value is shown", () => {
  for (const [firstText, first] of unsafe) {
    for (const [secondText, second] of unsafe) {
      const environment = { ...safe, ...first.environment, ...second.environment };
      const problems = findUnsafeSettings(environment, { ...safeFacts, ...first.facts, ...second.facts }).join("\n");
      // Of two values for one setting, the later one counts.
      const sameSetting = Object.keys({ ...first.environment, ...first.facts }).some(
        (name) => name in { ...second.environment, ...second.facts },
      );
      if (!sameSetting) expect(problems).toContain(firstText);
      expect(problems).toContain(secondText);
      expect(problems).not.toMatch(/b3ef0d11c6|x:postgres|db\.example\.com/);
    }
  }
});
