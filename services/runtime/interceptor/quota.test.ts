import { create } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { IdentityService, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { HelpSchema, QuotaFailureSchema, RetryInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, createClient, createRouterTransport, type Interceptor } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import { pino } from "pino";
import { expect, test } from "vitest";
import { edgeRequestKey } from "../edge/edge-request.ts";
import { AppError } from "../errors/app-error.ts";
import type { Limits } from "../identity/limits.ts";
import { newId } from "../ids/id.ts";
import { requestContext } from "../rpc/request-context.ts";
import { errors } from "./errors.ts";
import { quota } from "./quota.ts";
import { telemetry } from "./telemetry.ts";

const log = pino({ level: "silent" });

/** A client whose `authorization` header names its key, and none if it is empty. */
function start(limits: Limits) {
  const orgId = newId("org");
  let now = 0;
  const identify: Interceptor = (next) => (request) => {
    const key = request.header.get("authorization");
    const context = requestContext(request.contextValues);
    if (key !== null) context.principal = create(PrincipalSchema, { subject: key, orgId, role: Role.MEMBER });
    return next(request);
  };
  const source: Interceptor = (next) => (request) => {
    request.contextValues.set(edgeRequestKey, {
      requestId: newId("req"),
      source: request.header.get("x-source") ?? "",
      traceparent: "",
    });
    return next(request);
  };
  const interceptors = [
    source,
    telemetry({ host: "t", plane: "edge", tracer: trace.getTracer("t"), meter: metrics.getMeter("t"), log }),
    errors(log),
    identify,
    quota({ limits, log, now: () => now }),
  ];
  const transport = createRouterTransport(({ service }) => service(IdentityService, { listLimits: () => ({}) }), {
    router: { interceptors },
  });
  const client = createClient(IdentityService, transport);
  /** How many of so many calls pass. */
  const burst = async (calls: number, headers: Record<string, string>) => {
    let passed = 0;
    let refusal: ConnectError | undefined;
    for (let index = 0; index < calls; index++) {
      try {
        await client.listLimits({}, { headers });
        passed += 1;
      } catch (thrown) {
        refusal = ConnectError.from(thrown);
      }
    }
    return { passed, refusal };
  };
  return { burst, advance: (ms: number) => (now += ms) };
}

const declared: Readonly<Record<string, number>> = { requests_per_second: 100, request_burst: 200 };
const fixed: Limits = { get: (_, name) => declared[name] ?? 0 };

test("a key's burst passes exactly, then its rate; other keys are not touched", async () => {
  const { burst, advance } = start(fixed);
  expect((await burst(250, { authorization: "a" })).passed).toBe(200);
  expect((await burst(10, { authorization: "b" })).passed).toBe(10);
  advance(500);
  expect((await burst(100, { authorization: "a" })).passed).toBe(50);
  advance(10);
  expect((await burst(2, { authorization: "a" })).passed).toBe(1);
  advance(3_600_000);
  expect((await burst(250, { authorization: "a" })).passed).toBe(200);
});

test("a refusal says for how long, which limit, and what to do", async () => {
  const { burst } = start(fixed);
  const { refusal } = await burst(201, { authorization: "a" });
  expect(refusal?.code).toBe(Code.ResourceExhausted);
  expect(refusal?.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({ seconds: 0n, nanos: 10_000_000 });
  expect(refusal?.findDetails(QuotaFailureSchema)[0]?.violations[0]).toMatchObject({
    quotaId: "requests_per_second",
    quotaValue: 100n,
  });
  expect(refusal?.findDetails(HelpSchema)[0]?.links[0]?.description).not.toBe("");
});

test("calls without a credential count by their address", async () => {
  const { burst } = start(fixed);
  expect((await burst(210, { "x-source": "192.0.2.1" })).passed).toBe(200);
  expect((await burst(1, { "x-source": "192.0.2.2" })).passed).toBe(1);
});

test("an org's own limits hold, also when they must be asked for", async () => {
  const { burst } = start({ get: async (_, name) => (name === "request_burst" ? 3 : 1) });
  expect((await burst(10, { authorization: "a" })).passed).toBe(3);
});

test("while limits cannot be read the default rate holds", async () => {
  const { burst } = start({ get: () => Promise.reject(new AppError("UNAVAILABLE", "no")) });
  expect((await burst(210, { authorization: "a" })).passed).toBe(200);
});
