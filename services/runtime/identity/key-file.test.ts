import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ConfigurationError } from "../config/settings.ts";
import { loadOrMakeKeyFile, readKeyFile, replacePrivateFile } from "./key-file.ts";

const directory = mkdtempSync(join(tmpdir(), "key-file-"));
afterAll(() => rmSync(directory, { recursive: true }));

test("a key is made once, for its owner alone, and leaves nothing else behind", () => {
  const file = join(directory, "keys", "a.key");
  const key = loadOrMakeKeyFile(file);
  expect(key).toHaveLength(32);
  expect(loadOrMakeKeyFile(file).equals(key)).toBe(true);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readdirSync(join(directory, "keys"))).toEqual(["a.key"]);
});

test("a key that others may read is refused", () => {
  const file = join(directory, "open.key");
  loadOrMakeKeyFile(file);
  chmodSync(file, 0o640);
  expect(() => readKeyFile(file)).toThrow(ConfigurationError);
});

test.each(["", "00", "g".repeat(64), "0".repeat(66)])("%j is no key", (text) => {
  const file = join(directory, "bad.key");
  writeFileSync(file, text, { mode: 0o600 });
  expect(() => readKeyFile(file)).toThrow(ConfigurationError);
});

test("a replaced file is private", () => {
  const file = join(directory, "replaced");
  replacePrivateFile(file, "one");
  replacePrivateFile(file, "two");
  expect(readFileSync(file, "utf8")).toBe("two");
  expect(statSync(file).mode & 0o777).toBe(0o600);
});
