import { expect, test } from "vitest";
import { redact, redactText } from "./redact.ts";

const apiKey = `cdr_dev_${"a".repeat(38)}`;
const jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl";

test.each([
  ["an API key", `got ${apiKey} from`, "got [redacted] from"],
  ["a JWT", `token=${jwt};`, "token=[redacted];"],
  ["a bearer credential", "Authorization: Bearer abcdefghijkl", "Authorization: Bearer [redacted]"],
  ["a URL's password", "postgres://u:p@ss@h/db", "postgres://u:[redacted]@ss@h/db"],
  ["a provider's key", "sk-proj-0123456789abcdef", "[redacted]"],
  ["nothing secret", "session not found", "session not found"],
])("a text with %s", (_, text, expected) => {
  expect(redactText(text)).toBe(expected);
});

test("fields named like secrets are masked at any depth, others kept", () => {
  const logged = JSON.stringify(
    redact({ a: { Password: "hunter2", b: [{ apiKey: "x", idempotency_key: "k1" }] }, authorization: "Basic eDp5" }),
  );
  expect(logged).not.toMatch(/hunter2|eDp5|"x"/);
  expect(logged).toContain('"idempotency_key":"k1"');
});

test("an error keeps its type and stack, and loses what is secret in its message and cause", () => {
  const error = new TypeError(`bad ${apiKey}`, { cause: new Error("postgres://user:geheim@host/db") });
  const logged = JSON.stringify(redact({ err: error }));
  expect(logged).toContain("TypeError");
  expect(logged).toContain("redact.test.ts");
  expect(logged).not.toMatch(/geheim|aaaaaa/);
});

test("a cycle and a deep value end", () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  expect(JSON.stringify(redact(cycle))).toContain("[deeper]");
});
