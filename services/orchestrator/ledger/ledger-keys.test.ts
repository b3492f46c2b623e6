import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compactVerify, importJWK } from "jose";
import pino from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { verifySignature } from "../../../cli/ledger/verify-signature.ts";
import { ConfigurationError } from "../../runtime/config/settings.ts";
import { newId } from "../../runtime/ids/id.ts";
import { type LedgerKeys, openLedgerKeys } from "./ledger-keys.ts";

let directory: string;
let nowMs: number;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "cadre keys ")), "ledger");
  nowMs = Date.parse("2026-02-01T00:00:00Z");
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true, force: true }));

const open = (): LedgerKeys => openLedgerKeys({ directory, log: pino({ level: "silent" }), now: () => nowMs });
const head = { runId: newId("run"), entries: 3, hash: Uint8Array.from(Buffer.alloc(32, 7)) };
const claimed = { runId: head.runId, entries: 3, head: "07".repeat(32) };
const publishedBy = (keys: LedgerKeys) => ({
  keys: keys.published().map((key) => ({ kty: "OKP" as const, crv: "Ed25519" as const, ...key })),
});

test("a signature is a JWS that others verify by the published key", async () => {
  const keys = open();
  const [key] = publishedBy(keys).keys;
  const { payload, protectedHeader } = await compactVerify(keys.sign(head), await importJWK({ ...key }, "EdDSA"));
  expect(protectedHeader).toEqual({ alg: "EdDSA", kid: key?.kid, typ: "cadre-ledger+jws" });
  expect(JSON.parse(Buffer.from(payload).toString())).toEqual({
    run_id: head.runId,
    entries: 3,
    head: claimed.head,
    signed_at: "2026-02-01T00:00:00.000Z",
  });
});

test("processes that share the directory share the key", () => {
  expect(open().published()).toEqual(open().published());
});

test("a later key signs, and what the earlier one signed is still verified", () => {
  const keys = open();
  const before = keys.sign(head);
  const [first] = keys.published();
  writeFileSync(join(directory, "0002.key"), "ab".repeat(32), { mode: 0o600 });
  expect(keys.published()).toEqual([first]);
  nowMs += 10_000;
  const after = keys.sign(head);
  const [second, ...others] = keys.published();
  expect(others).toEqual([first]);
  expect(verifySignature(before, claimed, publishedBy(keys))).toMatchObject({ keyId: first?.kid });
  expect(verifySignature(after, claimed, publishedBy(keys))).toMatchObject({ keyId: second?.kid });
});

test("a directory that is gone changes nothing", () => {
  const keys = open();
  const before = keys.published();
  rmSync(directory, { recursive: true });
  writeFileSync(directory, "");
  nowMs += 10_000;
  expect(verifySignature(keys.sign(head), claimed, publishedBy(keys))).toMatchObject({ keyId: before[0]?.kid });
});

test("a key that others may read is refused", () => {
  open();
  writeFileSync(join(directory, "0002.key"), "ab".repeat(32), { mode: 0o644 });
  expect(open).toThrow(ConfigurationError);
});

test.each([
  ["another run", { runId: newId("run") }, "rewritten"],
  ["another head", { head: "08".repeat(32) }, "rewritten"],
  ["fewer entries", { entries: 2 }, "cut off"],
])("a signature of %s is refused", (_what, changed, problem) => {
  const keys = open();
  const report = verifySignature(keys.sign(head), { ...claimed, ...changed }, publishedBy(keys));
  expect(report).toMatchObject({ problem: expect.stringContaining(problem) });
});

test("a signature that was changed, is of a strange key or is none is refused", () => {
  const keys = open();
  const [header = "", claims = "", signature = ""] = keys.sign(head).split(".");
  const none = Buffer.from(JSON.stringify({ alg: "none", kid: keys.published()[0]?.kid, typ: "cadre-ledger+jws" }));
  const changed = [
    `${header}.${claims}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`,
    `${header}.${claims}.`,
    `${none.toString("base64url")}.${claims}.${signature}`,
    `${header}.${claims}.${signature}.x`,
    "x",
    "",
  ];
  for (const text of changed) {
    expect(verifySignature(text, claimed, publishedBy(keys)), text).toHaveProperty("problem");
  }
  expect(verifySignature(keys.sign(head), claimed, { keys: [] })).toMatchObject({
    problem: expect.stringContaining("none of the given keys"),
  });
});
