import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { isExampleKey, keyBytesOf } from "./example-key.ts";

test.each([
  ["zeros", "0".repeat(64)],
  ["one byte", "ab".repeat(32)],
  ["a word of hexadecimal digits", "deadbeef".repeat(8)],
  ["all digits, over and over", "0123456789abcdef".repeat(4)],
  ["bytes that count up", Buffer.from(Array.from({ length: 32 }, (_, index) => index)).toString("hex")],
  ["bytes that count down", Buffer.from(Array.from({ length: 32 }, (_, index) => 255 - index)).toString("hex")],
  ["a word of documentation", "Please-Change-Me: 8Jk2mQ9vXz4LrT7nPw3B"],
  ["a placeholder", "sk-your_key_8Jk2mQ9vXz4LrT7nPw3BcD5f"],
])("%s is an example", (_, key) => {
  expect(isExampleKey(`${key}\n`)).toBe(true);
});

test("no random key is taken for an example", () => {
  for (let round = 0; round < 20_000; round++) {
    const bytes = randomBytes(32);
    expect(isExampleKey(bytes.toString("hex"))).toBe(false);
    expect(isExampleKey(bytes.toString("base64"))).toBe(false);
  }
});

test("a private key in PEM is none", () => {
  expect(isExampleKey("-----BEGIN PRIVATE KEY-----\nexample\n-----END PRIVATE KEY-----\n")).toBe(false);
});

test.each([
  ["64 hexadecimal digits", "f".repeat(64), 32],
  ["32 hexadecimal digits", `${"f".repeat(32)}\n`, 16],
  ["a text", "sk-8Jk2mQ9vXz4LrT7nPw3BcD5fGhJk", 31],
])("%s have their bytes", (_, text, bytes) => expect(keyBytesOf(text)).toBe(bytes));
