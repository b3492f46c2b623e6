import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { SendTurnRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { doors, startTarget, type Target } from "./target.ts";
import { call, callToolMethod, sessionMethod, unaryProtocols, type WireProtocol } from "./wire-client.ts";

const invalidArgument = 3;
const resourceExhausted = 8;
const mebibyte = 1024 * 1024;
const unaryMaxBytes = 4 * mebibyte;
const streamMaxBytes = mebibyte;

// The same at both doors: the edge's own handler, and the gateway that is built on it.
describe.each(doors)("at the door of the %s", (door) => {
  let target: Target;
  beforeAll(async () => {
    target = await startTarget({ door });
  });
  afterAll(() => target.stop());

  /** A refusal is HTTP 400 in Connect unary, and 200 with the code at the end elsewhere. */
  function refusedAs(protocol: WireProtocol, stream: boolean, code: number, reason: string) {
    const statuses: Readonly<Record<number, number>> = { [invalidArgument]: 400, [resourceExhausted]: 429 };
    return { status: protocol === "connect" && !stream ? statuses[code] : 200, code, reason };
  }

  describe.each(unaryProtocols)("over %s", (protocol) => {
    const secret = "hunter2secret";
    test.each([
      ["a text that is cut off", `{"sessionId":"${secret}`, ""],
      ["a number for a text", `{"sessionId":"s","text":5}`, "text"],
      ["an object for a text", `{"sessionId":{"a":"${secret}"}}`, "session_id"],
      ["a key that is there twice", `{"text":"${secret}","text":"b"}`, "text"],
      ["a key that is there twice, once escaped", `{"text":"${secret}","te\\u0078t":"b"}`, "text"],
      ["a number that is none", `{"text":NaN}`, "text"],
      ["bytes after the end", `{"text":"a"}${secret}`, ""],
      ["UTF-16", Buffer.from(`\ufeff{"text":"${secret}"}`, "utf16le"), ""],
      ["a byte order mark", `\ufeff{"text":"${secret}"}`, ""],
      ["text that is not UTF-8", Buffer.from(`{"text":"${secret}\xff"}`, "latin1"), ""],
      ["half a character", `{"text":"\\ud800"}`, "text"],
      ["a control character", `{"text":"a\u0000"}`, "text"],
    ])("JSON with %s is refused, and its field named", async (_, body, field) => {
      await target.reset();
      const answer = await call(target.port, protocol, sessionMethod("SendTurn"), body, { json: true });
      expect(answer).toMatchObject(refusedAs(protocol, false, invalidArgument, "MALFORMED_MESSAGE"));
      expect(answer.message).toContain(field);
      expect(answer.message).not.toContain(secret);
      expect((await target.assertUnharmed([secret])).maxStallMs).toBeLessThan(100);
    });

    test("JSON with a number past 32 bits is refused, and its field named", async () => {
      const answer = await call(target.port, protocol, sessionMethod("ListTurns"), `{"pageSize":4294967296}`, {
        json: true,
      });
      expect(answer).toMatchObject(refusedAs(protocol, false, invalidArgument, "MALFORMED_MESSAGE"));
      expect(answer.message).toContain("page_size");
      expect(answer.message).not.toContain("4294967296");
    });

    test.each([
      ["a varint without end", "ffffff"],
      ["a length that is cut off", "0aff"],
      ["a length past the end", "0a05616263"],
      ["a length of 2^31", "0a8080808008"],
      ["an overlong varint", "18ffffffffffffffffffff01"],
      ["field number 0", "000a"],
      ["wire type 7", "0f"],
      ["wire type 6", "0e"],
      ["groups 200 deep", "7b".repeat(200) + "7c".repeat(200)],
      ["a group without end", "7b"],
      ["the end of a group that did not begin", "7c"],
      ["a number where the contract has a text", "0805"],
      ["a text that is not UTF-8", "0a02c328"],
      ["a cut-off message within a message", "22020a05"],
    ])("Protobuf with %s is refused as the caller's fault", async (_, hex) => {
      const answer = await call(target.port, protocol, sessionMethod("SendTurn"), Buffer.from(hex, "hex"));
      expect(answer).toMatchObject(refusedAs(protocol, false, invalidArgument, "MALFORMED_MESSAGE"));
      await target.assertUnharmed();
    });

    test.each([
      ["nested 101 deep", nestedJson(101)],
      ["nested 5,000 deep", nestedJson(5_000)],
      ["an array of 10^6 zeros", `{"answerSchema":{"a":[${"0,".repeat(999_999)}0]}}`],
      ["10^5 keys", `{"answerSchema":{${Array.from({ length: 100_000 }, (_, index) => `"k${index}":0`).join(",")}}}`],
    ])("a Struct with %s is refused without a stall", async (_, body) => {
      const before = await target.reset();
      const answer = await call(target.port, protocol, sessionMethod("SendTurn"), body, { json: true });
      expect(answer).toMatchObject(refusedAs(protocol, false, invalidArgument, "MALFORMED_MESSAGE"));
      const after = await target.assertUnharmed();
      expect(after.maxStallMs).toBeLessThan(100);
      expect(after.maxRssBytes - before.rssBytes).toBeLessThan(64 * mebibyte);
    });

    test.each([
      ["nested 101 deep", nestedStruct(101)],
      ["a million values", wideStruct(1_000_000)],
    ])("a binary Struct with %s is refused without a stall", async (_, body) => {
      const before = await target.reset();
      const answer = await call(target.port, protocol, sessionMethod("SendTurn"), body);
      expect(answer).toMatchObject(refusedAs(protocol, false, invalidArgument, "MALFORMED_MESSAGE"));
      const after = await target.assertUnharmed();
      expect(after.maxStallMs).toBeLessThan(100);
      expect(after.maxRssBytes - before.rssBytes).toBeLessThan(64 * mebibyte);
    });

    describe.each([
      ["unary", false, unaryMaxBytes],
      ["stream", true, streamMaxBytes],
    ] as const)("%s", (kind, stream, maxBytes) => {
      const path = stream ? callToolMethod : sessionMethod("SendTurn");
      const big = (bytes: number) => messageOf(bytes);

      test("a message at the limit is taken", async () => {
        const answer = await call(target.port, protocol, path, big(maxBytes), { stream });
        expect(answer).toMatchObject({ status: 200, code: 0 });
      });

      test.each([
        ["one byte more", (): [Buffer, string | undefined] => [big(maxBytes + 1), undefined]],
        ["ten times as much", (): [Buffer, string | undefined] => [big(maxBytes * 10), undefined]],
        ["one byte more by gzip", (): [Buffer, string | undefined] => [gzipSync(noise(maxBytes + 1)), "gzip"]],
        ["a gzip bomb", (): [Buffer, string | undefined] => [gzipSync(Buffer.alloc(maxBytes * 10)), "gzip"]],
        ["a brotli bomb", (): [Buffer, string | undefined] => [brotli(Buffer.alloc(maxBytes * 10)), "br"]],
        [
          "a gzip bomb under the limit",
          (): [Buffer, string | undefined] => [gzipSync(Buffer.alloc(mebibyte - 1)), "gzip"],
        ],
      ])("%s is refused, within twice the limit of memory", async (_, make) => {
        const [body, encoding] = make();
        const grown: number[] = [];
        // What the process needs by itself comes on top, and some calls meet its collector: the least of three counts.
        for (let attempt = 0; attempt < 3; attempt += 1) {
          const before = await target.reset();
          const answer = await call(target.port, protocol, path, body, {
            stream,
            ...(encoding === undefined ? {} : { encoding }),
          });
          expect(answer).toMatchObject(refusedAs(protocol, stream, resourceExhausted, "MESSAGE_TOO_LARGE"));
          const after = await target.assertUnharmed();
          expect(after.inFlightBytes).toBe(0);
          grown.push(after.maxRssBytes - before.rssBytes);
        }
        expect(Math.min(...grown)).toBeLessThan(2 * unaryMaxBytes + 16 * mebibyte);
      });

      test.each(["gzip", "br"])("a message by %s is taken", async (encoding) => {
        const body = messageOf(100);
        const bytes = encoding === "gzip" ? gzipSync(body) : brotli(body);
        expect(await call(target.port, protocol, path, bytes, { stream, encoding })).toMatchObject({
          status: 200,
          code: 0,
        });
      });

      test("bytes that are not of the named encoding are refused", async () => {
        const answer = await call(target.port, protocol, path, "not gzip", { stream, encoding: "gzip" });
        expect(answer).toMatchObject(refusedAs(protocol, stream, invalidArgument, "MALFORMED_MESSAGE"));
      });

      // A unary body of Connect has no flags.
      if (protocol === "connect" && kind === "unary") return;
      test("a message marked as compressed without an encoding is refused", async () => {
        const answer = await call(target.port, protocol, path, messageOf(10), { stream, compressed: true });
        expect(answer).toMatchObject(refusedAs(protocol, stream, invalidArgument, "MALFORMED_MESSAGE"));
        const identity = { stream, compressed: true, encoding: "identity" };
        expect(await call(target.port, protocol, path, messageOf(10), identity)).toMatchObject({
          code: invalidArgument,
        });
        await target.assertUnharmed();
      });
    });
  });

  test("request bytes in flight past the process's budget are refused with a time to wait", async () => {
    const small = await startTarget({ door, limits: { maxInFlightBytes: mebibyte } });
    try {
      const answer = await call(small.port, "connect", sessionMethod("SendTurn"), messageOf(2 * mebibyte));
      expect(answer).toMatchObject({ status: 429, code: resourceExhausted, reason: "OVERLOADED" });
      const report = await small.assertUnharmed();
      expect(report.inFlightBytes).toBe(0);
    } finally {
      await small.stop();
    }
  });
});

/** A request of exactly so many bytes, for `SendTurn` and for `CallTool`: a text in field 1. */
function messageOf(bytes: number): Buffer {
  for (let text = Math.max(0, bytes - 8); ; text++) {
    const head = Buffer.from(toBinary(SendTurnRequestSchema, create(SendTurnRequestSchema, { sessionId: "a" })));
    const body = Buffer.concat([head.subarray(0, 1), varint(text), Buffer.alloc(text, "a")]);
    if (body.length === bytes) return body;
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

/** Bytes that compress by less than the ratio that is refused. */
function noise(bytes: number): Buffer {
  const result = Buffer.alloc(bytes);
  let state = 1;
  for (let index = 0; index < bytes; index += 16) {
    state = (state * 1_103_515_245 + 12_345) >>> 0;
    result[index] = state >>> 16;
  }
  return result;
}

function brotli(bytes: Buffer): Buffer {
  return brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 3 } });
}

function nestedJson(depth: number): string {
  return `{"answerSchema":${'{"a":'.repeat(depth)}1${"}".repeat(depth)}}`;
}

/** A length-delimited field. */
function field(number: number, content: Buffer): Buffer {
  return Buffer.concat([varint((number << 3) | 2), varint(content.length), content]);
}

function nestedStruct(depth: number): Buffer {
  let struct: Buffer = Buffer.alloc(0);
  for (let level = 0; level < depth; level++) {
    const entry = Buffer.concat([field(1, Buffer.from("a")), field(2, field(5, struct))]);
    struct = field(1, entry);
  }
  return field(4, struct);
}

/** A list of nulls, four bytes each. */
function wideStruct(values: number): Buffer {
  const list = Buffer.alloc(values * 4);
  for (let index = 0; index < values; index++) list.set([0x0a, 0x02, 0x08, 0x00], index * 4);
  return field(4, field(1, Buffer.concat([field(1, Buffer.from("a")), field(2, field(6, list))])));
}
