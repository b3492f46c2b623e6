import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createPageTokens, type PageScope } from "./page-token.ts";

const key = randomBytes(32);
const scope: PageScope = { orgId: "org_1", method: "a.B/ListC", filter: "type=x" };

test("what is sealed is opened, and cannot be read from the outside", () => {
  const tokens = createPageTokens(key);
  fc.assert(
    fc.property(fc.string({ maxLength: 120 }), (position) => {
      const token = tokens.seal(scope, position);
      expect(token.length).toBeLessThanOrEqual(1_024);
      expect(tokens.open(scope, token)).toBe(Buffer.from(position, "utf8").toString("utf8"));
    }),
  );
  expect(Buffer.from(tokens.seal(scope, "run_secret"), "base64url").toString("latin1")).not.toContain("run_secret");
});

test("an empty token is the first page", () => {
  expect(createPageTokens(key).open(scope, "")).toBeUndefined();
});

test("the longest position fits into a token of the contract's length", () => {
  const tokens = createPageTokens(key);
  expect(tokens.seal(scope, "x".repeat(512)).length).toBeLessThanOrEqual(1_024);
  expect(() => tokens.seal(scope, "x".repeat(513))).toThrow(TypeError);
});

const elsewhere: [string, PageScope][] = [
  ["org", { ...scope, orgId: "org_2" }],
  ["method", { ...scope, method: "a.B/ListD" }],
  ["filter", { ...scope, filter: "" }],
  ["split of the same text", { ...scope, orgId: "org_1a", method: ".B/ListC" }],
];
test.each(elsewhere)("a token of another %s is refused", (_, other) => {
  const tokens = createPageTokens(key);
  expect(() => tokens.open(other, tokens.seal(scope, "p"))).toThrow(/page_token/);
});

test("every flipped bit is noticed", () => {
  const tokens = createPageTokens(key);
  const bytes = Buffer.from(tokens.seal(scope, "position"), "base64url");
  for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(() => tokens.open(scope, changed.toString("base64url"))).toThrow(/page_token/);
  }
});

test("a token ends after an hour", () => {
  let now = 1_000_000;
  const tokens = createPageTokens(key, () => now);
  const token = tokens.seal(scope, "p");
  now += 3_600_000;
  expect(tokens.open(scope, token)).toBe("p");
  now += 1;
  expect(() => tokens.open(scope, token)).toThrow(/page_token/);
});

test.each(["AQ", "x", "a b", "=".repeat(40), "A".repeat(1_025), "😀"])("%j is refused", (token) => {
  expect(() => createPageTokens(key).open(scope, token)).toThrow(/page_token/);
});
