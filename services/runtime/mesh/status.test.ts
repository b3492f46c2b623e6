import { BadRequestSchema, ErrorInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { Metadata } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { fromConnectError, toConnectError } from "../errors/failure.ts";
import { fromStatus, toStatus } from "./status.ts";

test("an error comes back with code, text, details and metadata", () => {
  const error = toConnectError(
    new AppError("SESSION_NOT_FOUND", "no such session", {
      violations: [{ field: "session_id", message: "must exist", rule: "exists" }],
      metadata: { a: "b" },
    }),
    "req_1",
  );
  error.metadata.set("x-request-id", "req_1");
  const back = fromStatus(toStatus(error));
  if (back === undefined) throw new Error("the error is lost");
  expect(back.code).toBe(Code.NotFound);
  expect(back.rawMessage).toBe("no such session");
  expect(back.metadata.get("x-request-id")).toBe("req_1");
  expect(back.findDetails(ErrorInfoSchema)[0]?.metadata).toEqual({ a: "b" });
  expect(back.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field).toBe("session_id");
  expect(fromConnectError(back)?.reason).toBe("SESSION_NOT_FOUND");
});

test.each(Object.values(Code).filter((code) => typeof code === "number"))("code %i keeps its number", (code) => {
  const status = toStatus(new ConnectError("text", code));
  expect(status.code).toBe(code);
  expect(fromStatus(status)?.code).toBe(code);
});

test("OK is no error", () => {
  expect(fromStatus({ code: 0, details: "", metadata: new Metadata() })).toBeUndefined();
});

test("a code that nobody knows becomes unknown", () => {
  expect(fromStatus({ code: 99 as number as Code & 0, details: "?", metadata: new Metadata() })?.code).toBe(
    Code.Unknown,
  );
});

test.each([
  { what: "are malformed", bytes: Buffer.from([255, 255, 255]) },
  { what: "are of another code", bytes: Buffer.from([8, 3]) },
])("details that $what do not hide the status", ({ bytes }) => {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", bytes);
  const error = fromStatus({ code: 5, details: "text", metadata });
  expect(error?.code).toBe(Code.NotFound);
  expect(error?.rawMessage).toBe("text");
});

test("half of a surrogate pair in a message is replaced, as it cannot be sent", () => {
  expect(() => encodeURI(toStatus(new ConnectError("a\ud800b", Code.Internal)).details)).not.toThrow();
});
