import type { DescService } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import {
  GetSessionRequestSchema,
  GetSessionResponseSchema,
  SessionService,
} from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { BadRequestSchema, QuotaFailureSchema, RetryInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import {
  type Client,
  Code,
  ConnectError,
  createClient,
  createRouterTransport,
  type Interceptor,
  type ServiceImpl,
} from "@connectrpc/connect";
import { expect, test } from "vitest";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toConnectError } from "../../runtime/errors/failure.ts";
import { newId } from "../../runtime/ids/id.ts";
import { type RequestContext, requestContextKey } from "../../runtime/rpc/request-context.ts";
import { createLocalTransport } from "../rest/local-transport.ts";
import { forwardService } from "./forward-service.ts";

const sessionId = newId("ses");

function contextOf(overrides: Partial<RequestContext>): RequestContext {
  return {
    requestId: newId("req"),
    traceparent: "",
    source: "",
    deadline: Number.POSITIVE_INFINITY,
    signal: new AbortController().signal,
    principal: undefined,
    callingService: undefined,
    idempotencyKey: "",
    ...overrides,
  } as RequestContext;
}

/** The forwarder, which stands before handlers that are reached through a real codec. */
function forwarder(handlers: Partial<ServiceImpl<typeof SessionService>>, context: Partial<RequestContext> = {}) {
  const peer = createClient(
    SessionService,
    createRouterTransport(({ service }) => service(SessionService, handlers)),
  );
  const givesContext: Interceptor = (next) => (request) => {
    request.contextValues.set(requestContextKey, contextOf({ signal: request.signal, ...context }));
    return next(request);
  };
  const implementation = forwardService(SessionService, peer as unknown as Client<DescService>);
  return createLocalTransport([implementation], [givesContext]);
}

function forwarded(...args: Parameters<typeof forwarder>) {
  return createClient(SessionService, forwarder(...args));
}

async function failureOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => {
      throw new Error("the call did not fail");
    },
    (thrown: unknown) => thrown,
  );
}

test("fields that this build does not know pass both ways", async () => {
  const unknown = [{ no: 4_711, wireType: 0, data: new Uint8Array([42]) }];
  const client = forwarded({
    getSession: (request) => Object.assign(create(GetSessionResponseSchema), { $unknown: request.$unknown }),
  });
  const request = create(GetSessionRequestSchema, { sessionId });
  request.$unknown = unknown;
  expect((await client.getSession(request)).$unknown).toEqual(unknown);
});

test("an error passes with its code, its details and its message", async () => {
  const client = forwarded({
    getSession() {
      throw toConnectError(
        new AppError("RATE_LIMITED", "too many calls", {
          retryAfterMs: 700,
          violations: [{ field: "a", message: "b" }],
          quotas: [{ subject: "org", limit: "calls", value: 1n, description: "one" }],
        }),
        "req_1",
      );
    },
  });
  const thrown = ConnectError.from(await failureOf(client.getSession({ sessionId })));
  expect([thrown.code, thrown.rawMessage]).toEqual([Code.ResourceExhausted, "too many calls"]);
  expect(thrown.findDetails(RetryInfoSchema)[0]?.retryDelay?.nanos).toBe(700_000_000);
  expect(thrown.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field).toBe("a");
  expect(thrown.findDetails(QuotaFailureSchema)[0]?.violations[0]?.quotaId).toBe("calls");
});

test.each([
  [Code.Unavailable, "UNAVAILABLE"],
  [Code.Canceled, "CANCELLED"],
  [Code.DeadlineExceeded, "DEADLINE_EXCEEDED"],
  [Code.Unimplemented, "UNIMPLEMENTED"],
])("what the way there says (code %i) is replaced by what the contract says: %s", async (code, reason) => {
  const client = forwarded({
    getSession() {
      throw new ConnectError("connect ECONNREFUSED 10.1.2.3:4567", code);
    },
    // biome-ignore lint/correctness/useYield: it fails before its first message
    async *streamEvents() {
      throw new ConnectError("connect ECONNREFUSED 10.1.2.3:4567", code);
    },
  });
  const unary = await failureOf(client.getSession({ sessionId }));
  const stream = await failureOf(Array.fromAsync(client.streamEvents({ sessionId })));
  for (const thrown of [unary, stream]) {
    const failure = thrown instanceof ConnectError ? thrown.cause : thrown;
    expect(failure).toMatchObject({ reason });
    expect((failure as Error).message).not.toContain("10.1.2.3");
  }
});

test("the rest of the deadline and the idempotency key go along; other headers stay behind", async () => {
  const client = forwarded(
    {
      getSession(_request, { requestHeader, timeoutMs, responseHeader, responseTrailer }) {
        responseHeader.set("cadre-a", "1");
        responseHeader.set("x-internal", "1");
        responseTrailer.set("cadre-b", "2");
        const title = [requestHeader.get("idempotency-key"), requestHeader.get("authorization"), timeoutMs()].join();
        return { session: { sessionId, title } };
      },
    },
    { idempotencyKey: "k-1", deadline: Date.now() + 10_000 },
  );
  const headers: Record<string, string> = {};
  const collect = (from: Headers): void => from.forEach((value, name) => void (headers[name] = value));
  const options = { headers: { authorization: "Bearer x" }, onHeader: collect, onTrailer: collect };
  const [key, authorization, timeoutMs] =
    (await client.getSession({ sessionId }, options)).session?.title.split(",") ?? [];
  expect([key, authorization]).toEqual(["k-1", ""]);
  expect(Number(timeoutMs)).toBeGreaterThan(9_000);
  expect(Number(timeoutMs)).toBeLessThanOrEqual(9_950);
  expect(headers).toEqual({ "cadre-a": "1", "cadre-b": "2" });
});

test("a stream behind ends when its reader stops, and when the request ends", async () => {
  const started: string[] = [];
  const ended: string[] = [];
  async function* streamEvents(_request: unknown, { signal }: { signal: AbortSignal }) {
    started.push("started");
    const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    void aborted.then(() => ended.push("ended"));
    for (let seq = 1n; seq < 4n; seq++) yield { event: { seq } };
    await aborted;
  }
  async function* request() {
    yield { sessionId };
  }
  const { message } = await forwarder({ streamEvents }).stream(
    SessionService.method.streamEvents,
    undefined,
    undefined,
    undefined,
    request(),
  );
  for await (const { event } of message) if (event?.seq === 2n) break;
  await expect.poll(() => ended.length).toBe(1);
  const gone = new AbortController();
  const reading = failureOf(
    Array.fromAsync(forwarded({ streamEvents }, { signal: gone.signal }).streamEvents({ sessionId })),
  );
  await expect.poll(() => started.length).toBe(2);
  gone.abort();
  await reading;
  await expect.poll(() => ended.length).toBe(2);
});
