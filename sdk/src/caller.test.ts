import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, createRouterTransport, type HandlerContext } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { CadreError, type CadreOptions, createCadre } from "./index.ts";

function setUp(
  handler: (call: number, context: HandlerContext) => void | Promise<void>,
  options: Partial<CadreOptions> = {},
) {
  const calls: Headers[] = [];
  const record = async (context: HandlerContext) => {
    calls.push(context.requestHeader);
    await handler(calls.length, context);
  };
  const transport = createRouterTransport((router) => {
    router.service(IdentityService, {
      async listLimits(_, context) {
        await record(context);
        return { limits: [] };
      },
    });
    router.service(ApiKeyService, {
      async issueKey(_, context) {
        await record(context);
        return { key: {}, secret: "cdr_dev_x" };
      },
    });
  });
  return { calls, cadre: createCadre({ baseUrl: "http://fake", transport, retry: { initialDelayMs: 0 }, ...options }) };
}

function failure(reason: string, code: Code, retryAfterMs?: number): ConnectError {
  const error = new ConnectError("told", code);
  const add = (desc: never, value: never) => error.details.push({ desc, value });
  add(
    ErrorInfoSchema as never,
    create(ErrorInfoSchema, { reason, domain: "cadre.dev", metadata: { scope: "a.b" } }) as never,
  );
  add(RequestInfoSchema as never, create(RequestInfoSchema, { requestId: "req_1" }) as never);
  add(HelpSchema as never, create(HelpSchema, { links: [{ description: "Do so." }] }) as never);
  const fieldViolations = [{ field: "name", description: "too long", reason: "string.max_len" }];
  add(BadRequestSchema as never, create(BadRequestSchema, { fieldViolations }) as never);
  if (retryAfterMs !== undefined) {
    add(RetryInfoSchema as never, create(RetryInfoSchema, { retryDelay: durationFromMs(retryAfterMs) }) as never);
  }
  return error;
}

async function failureOfCall(call: Promise<unknown>): Promise<CadreError> {
  const thrown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof CadreError)) throw new TypeError("not a CadreError", { cause: thrown });
  return thrown;
}

test("a failure of the contract is rebuilt whole", async () => {
  const { cadre } = setUp(() => {
    throw failure("INVALID_ARGUMENT", Code.InvalidArgument, 1500);
  });
  expect(await failureOfCall(cadre.limits.list())).toMatchObject({
    reason: "INVALID_ARGUMENT",
    code: 3,
    message: "told",
    requestId: "req_1",
    retryAfterMs: 1500,
    remedy: "Do so.",
    retryable: false,
    metadata: { scope: "a.b" },
    violations: [{ field: "name", message: "too long", rule: "string.max_len" }],
  });
});

test.each([
  ["a reason that this build does not know", failure("BRAND_NEW", Code.ResourceExhausted), "OVERLOADED", 8],
  ["a proxy's answer", new ConnectError("HTTP 502", Code.Unavailable), "UNAVAILABLE", 14],
  ["a bug", new ConnectError("internal error", Code.Internal), "INTERNAL", 13],
])("%s gets a reason by its code", async (_, thrown, reason, code) => {
  const { cadre } = setUp(
    () => {
      throw thrown;
    },
    { retry: { maxAttempts: 1 } },
  );
  expect(await failureOfCall(cadre.limits.list())).toMatchObject({ reason, code });
});

test.each([
  ["UNAVAILABLE", Code.Unavailable, 4],
  ["RATE_LIMITED", Code.ResourceExhausted, 4],
  ["AUTHZ_UNAVAILABLE", Code.PermissionDenied, 4],
  ["SESSION_BUSY", Code.FailedPrecondition, 1],
  ["UNAUTHENTICATED", Code.Unauthenticated, 1],
  ["INTERNAL", Code.Internal, 1],
])("%s is sent %s %i times", async (reason, code, times) => {
  const { calls, cadre } = setUp(() => {
    throw failure(reason, code);
  });
  expect((await failureOfCall(cadre.limits.list())).reason).toBe(reason);
  expect(calls).toHaveLength(times);
});

test("an idempotency key goes with methods that need one, the same on each attempt", async () => {
  const { calls, cadre } = setUp((call) => {
    if (call === 1) throw failure("UNAVAILABLE", Code.Unavailable);
  });
  await cadre.keys.issue({ name: "ci", scopes: ["*"], idempotencyKey: "mine" });
  await cadre.limits.list();
  expect(calls.map((header) => header.get("idempotency-key"))).toEqual(["mine", "mine", null]);
});

test("the server's wish to wait is respected, and no wait goes past the deadline", async () => {
  const { calls, cadre } = setUp((call) => {
    throw failure("RATE_LIMITED", Code.ResourceExhausted, call === 1 ? 40 : 60_000);
  });
  const start = performance.now();
  expect((await failureOfCall(cadre.limits.list({ timeoutMs: 5_000 }))).reason).toBe("RATE_LIMITED");
  expect(calls).toHaveLength(2);
  expect(performance.now() - start).toBeGreaterThanOrEqual(38);
});

test("a call ends by its timeout, whatever the server does", async () => {
  const { cadre } = setUp(() => new Promise(() => {}));
  expect((await failureOfCall(cadre.limits.list({ timeoutMs: 30 }))).reason).toBe("DEADLINE_EXCEEDED");
});

test("a signal ends a call, also between two attempts", async () => {
  const controller = new AbortController();
  const { cadre } = setUp(() => {
    setTimeout(() => controller.abort("enough"), 5);
    throw failure("RATE_LIMITED", Code.ResourceExhausted, 10_000);
  });
  const error = await failureOfCall(cadre.limits.list({ signal: controller.signal }));
  expect(error).toMatchObject({ reason: "CANCELLED", cause: "enough" });
});

test("a key can be asked for before each attempt", async () => {
  let number = 0;
  const apiKey = () => `key-${++number}`;
  const fail = (call: number) => {
    if (call === 1) throw failure("UNAVAILABLE", Code.Unavailable);
  };
  const { calls, cadre } = setUp(fail, { apiKey });
  await cadre.limits.list();
  expect(calls.map((header) => header.get("authorization"))).toEqual(["Bearer key-1", "Bearer key-2"]);
});

test.each(["", "localhost:8010", "ftp://host"])("%j is no base URL", (baseUrl) => {
  expect(() => createCadre({ baseUrl })).toThrow(TypeError);
});
