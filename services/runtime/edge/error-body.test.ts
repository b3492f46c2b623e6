import { ReasonSchema } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { codeToHttpStatus } from "@connectrpc/connect/protocol-connect";
import { expect, test } from "vitest";
import { AppError, type FailureReason } from "../errors/app-error.ts";
import { failureOf, toConnectError } from "../errors/failure.ts";
import { toErrorAnswer } from "./error-body.ts";

const reasons = ReasonSchema.values
  .filter((value) => value.number !== 0)
  .map((value) => value.localName as FailureReason);

test.each(reasons)("%s has a status, a code and itself in the body", (reason) => {
  const { status, body } = toErrorAnswer(new AppError(reason, "text"), "req_1");
  expect(status).toBe(codeToHttpStatus(failureOf(reason).code));
  expect(status).toBeGreaterThanOrEqual(400);
  expect(body.error).toMatchObject({ code: status, reason, message: "text", request_id: "req_1" });
  expect(body.error.status).toMatch(/^[a-z_]+$/);
});

test("details say what the body does not", () => {
  const error = new AppError("INVALID_ARGUMENT", "name: too long", {
    violations: [{ field: "name", message: "too long", rule: "string.max_len" }],
    metadata: { scope: "sessions.write" },
  });
  expect(toErrorAnswer(toConnectError(error, "req_2"), "req_1").body.error).toEqual({
    code: 400,
    status: "invalid_argument",
    reason: "INVALID_ARGUMENT",
    message: "name: too long",
    details: [
      {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        reason: "INVALID_ARGUMENT",
        domain: "cadre.dev",
        metadata: { scope: "sessions.write" },
      },
      {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        field_violations: [{ field: "name", description: "too long", reason: "string.max_len" }],
      },
      { "@type": "type.googleapis.com/google.rpc.Help", links: [{ description: "Correct the named fields." }] },
    ],
    request_id: "req_2",
  });
});

test.each([
  [1, "1"],
  [1_000, "1"],
  [1_001, "2"],
  [60_000, "60"],
])("to try again after %i ms is Retry-After: %s", (retryAfterMs, header) => {
  expect(toErrorAnswer(new AppError("RATE_LIMITED", "text", { retryAfterMs }), "req_1").header["retry-after"]).toBe(
    header,
  );
});

test.each([
  ["a bug", new Error("geheim")],
  ["a text", "geheim"],
  ["nothing", undefined],
  ["an error without a reason", new ConnectError("geheim", Code.DataLoss)],
])("%s is an internal error and no more", (_, thrown) => {
  const { status, body } = toErrorAnswer(thrown, "req_1");
  expect([status, body.error.reason, body.error.message]).toEqual([500, "INTERNAL", "internal error"]);
  expect(JSON.stringify(body)).not.toContain("geheim");
});
