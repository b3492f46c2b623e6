import { create, type JsonObject, toBinary, toJson } from "@bufbuild/protobuf";
import { SendTurnRequestSchema, SessionSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { assertSendable } from "./message-size.ts";

test("a message passes exactly if it is within the limit in the form that is sent", () => {
  const text = fc.string({ unit: "binary", maxLength: 60 });
  const session = fc.record({
    sessionId: text,
    title: text,
    labels: fc.dictionary(text, text, { maxKeys: 5 }),
    lastSeq: fc.bigInt(0n, 2n ** 64n - 1n),
    createdAt: fc.record({ seconds: fc.bigInt(0n, 4_000_000_000n), nanos: fc.nat(999_999_999) }),
  });
  fc.assert(
    fc.property(session, fc.boolean(), fc.integer({ min: -3, max: 3 }), (init, json, more) => {
      const message = create(SessionSchema, init as never);
      const bytes = json
        ? Buffer.byteLength(JSON.stringify(toJson(SessionSchema, message)))
        : toBinary(SessionSchema, message).byteLength;
      const check = () => assertSendable(SessionSchema, message, json, bytes + more);
      if (more >= 0) check();
      else expect(check).toThrow(AppError);
    }),
  );
});

test("neither do nested values of JSON hide from it", () => {
  const deep = (levels: number): JsonObject => (levels === 0 ? {} : { "\u0000\u0001": deep(levels - 1) });
  const message = create(SendTurnRequestSchema, { answerSchema: deep(50) });
  const bytes = Buffer.byteLength(JSON.stringify(toJson(SendTurnRequestSchema, message)));
  assertSendable(SendTurnRequestSchema, message, true, bytes);
  expect(() => assertSendable(SendTurnRequestSchema, message, true, bytes - 1)).toThrow(AppError);
});
