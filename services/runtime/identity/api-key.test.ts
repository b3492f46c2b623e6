import fc from "fast-check";
import { expect, test } from "vitest";
import { apiKeyDigest, makeApiKey, parseApiKey } from "./api-key.ts";

test("a key has the documented form and is read back", () => {
  const key = makeApiKey("live");
  expect(key.text).toMatch(/^cdr_live_[0-9A-Za-z]{38}$/);
  expect(key.prefix).toBe(key.text.slice(0, 12));
  expect(parseApiKey(key.text)).toEqual(key);
});

test("one changed character is noticed, wherever it is", () => {
  const { text } = makeApiKey("dev");
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.constantFrom(..."0Aaz9_-"), (index, character) => {
      fc.pre(text[index] !== character);
      expect(parseApiKey(text.slice(0, index) + character + text.slice(index + 1))).toBeUndefined();
    }),
    { numRuns: 500 },
  );
});

test("a live key does not pass for one of development", () => {
  expect(parseApiKey(makeApiKey("live").text.replace("_live_", "_dev_"))).toBeUndefined();
});

test.each(["", "cdr_", "cdr_dev_", "Bearer x", `cdr_dev_${"a".repeat(38)}\n`, `cdr_test_${"a".repeat(38)}`])(
  "%j is no key",
  (text) => {
    expect(parseApiKey(text)).toBeUndefined();
  },
);

test("bytes that would favour some characters are not used", () => {
  const bytes = [new Uint8Array(64).fill(255), new Uint8Array(64).fill(61)];
  let call = 0;
  expect(makeApiKey("dev", () => bytes[Math.min(call++, 1)] ?? new Uint8Array()).text).toContain(`_${"z".repeat(32)}`);
});

test("the digest depends on the server's key", () => {
  const key = makeApiKey("dev");
  const digest = apiKeyDigest(Buffer.alloc(32, 1), key);
  expect(digest).toHaveLength(32);
  expect(digest.equals(apiKeyDigest(Buffer.alloc(32, 2), key))).toBe(false);
});
