import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { newId } from "../ids/id.ts";
import { loadPageTokens } from "./load-page-tokens.ts";

const directory = mkdtempSync(join(tmpdir(), "page-key-"));
afterAll(() => rmSync(directory, { recursive: true }));
const scope = { orgId: newId("org"), method: "a.B/C", filter: "" };
const named = join(directory, "shared.key");
writeFileSync(named, "ab".repeat(32), { mode: 0o600 });

function machine(name: string): string {
  const data = join(directory, name);
  mkdirSync(data);
  return data;
}

test("a list that begins on one machine goes on at another with the same key, and not without", () => {
  const [one, other] = [machine("one"), machine("other")];
  const token = loadPageTokens({ dataDirectory: one, pageTokenKeyFile: named }).seal(scope, "here");
  expect(loadPageTokens({ dataDirectory: other, pageTokenKeyFile: named }).open(scope, token)).toBe("here");
  const apart = loadPageTokens({ dataDirectory: other, pageTokenKeyFile: undefined });
  expect(() => apart.open(scope, token)).toThrow(AppError);
});

test.each([
  ["that is not there", undefined, 0, "is not there"],
  ["that others may read", "ab".repeat(32), 0o644, "can be read by others"],
  ["that is no key", "ab", 0o600, "must hold 64 hexadecimal digits"],
])("a named file %s is refused", (name, text, mode, message) => {
  const file = join(directory, name);
  if (text !== undefined) {
    writeFileSync(file, text);
    chmodSync(file, mode);
  }
  expect(() => loadPageTokens({ dataDirectory: directory, pageTokenKeyFile: file })).toThrow(message);
});
