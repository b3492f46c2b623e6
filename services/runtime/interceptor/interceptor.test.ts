import { type OnBusy, SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, createClient, createRouterTransport, type ServiceImpl } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import pino from "pino";
import { expect, test } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { newId } from "../ids/id.ts";
import { requestContext } from "../rpc/request-context.ts";
import { deadline } from "./deadline.ts";
import { errors } from "./errors.ts";
import { limits } from "./limits.ts";
import { telemetry } from "./telemetry.ts";
import { validation } from "./validation.ts";

interface Setup {
  readonly handlers: Partial<ServiceImpl<typeof SessionService>>;
  readonly plane?: "edge" | "mesh";
  readonly deadlines?: { unaryMs: number; maxUnaryMs: number; maxStreamMs: number };
  readonly maxRunning?: number;
}

function start({ handlers, plane = "mesh", deadlines, maxRunning = 100 }: Setup) {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => lines.push(JSON.parse(line)) });
  const tracer = trace.getTracer("test");
  const interceptors = [
    telemetry({ host: "orchestrator", plane, tracer, meter: metrics.getMeter("test"), log }),
    errors(log),
    deadline(deadlines),
    limits({ maxRunning }),
    validation(),
  ];
  const transport = createRouterTransport(({ service }) => service(SessionService, handlers), {
    router: { interceptors },
  });
  return { client: createClient(SessionService, transport), lines };
}

async function failureOf(call: Promise<unknown>): Promise<ConnectError> {
  const thrown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(thrown instanceof ConnectError)) throw new Error("the call did not fail with a ConnectError");
  return thrown;
}

const sessionId = newId("ses");
const never = new Promise<never>(() => {});

test("a failure of the contract reaches the caller with its reason, its fields and the request's id", async () => {
  const { client } = start({
    handlers: {
      getSession() {
        throw new AppError("RATE_LIMITED", "too many calls", { retryAfterMs: 1_500 });
      },
    },
  });
  const requestId = newId("req");
  const failure = await failureOf(
    client.getSession({ sessionId }, { headers: { "x-cadre-request": `${requestId} - 203.0.113.7` } }),
  );
  expect(failure.code).toBe(Code.ResourceExhausted);
  expect(failure.findDetails(ErrorInfoSchema)[0]).toMatchObject({ reason: "RATE_LIMITED", domain: "cadre.dev" });
  expect(failure.findDetails(RequestInfoSchema)[0]?.requestId).toBe(requestId);
  expect(failure.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({ seconds: 1n, nanos: 500_000_000 });
});

test.each([
  ["an error with a secret", () => Promise.reject(new Error("postgres://u:geheim@h/db"))],
  ["a text", () => Promise.reject("geheim")],
  ["undefined", () => Promise.reject(undefined)],
])("a bug (%s) is answered without a word about it, and logged with the answer's id", async (_, getSession) => {
  const { client, lines } = start({ handlers: { getSession } });
  const failure = await failureOf(client.getSession({ sessionId }));
  expect([failure.code, failure.rawMessage]).toEqual([Code.Internal, "internal error"]);
  const errorId = failure.findDetails(ErrorInfoSchema)[0]?.metadata.error_id;
  expect(errorId).toMatch(/^evt_/);
  expect(lines.find((line) => line.msg === "internal error")?.error_id).toBe(errorId);
});

test("a bug in the middle of a stream ends it, after what was sent", async () => {
  const { client } = start({
    handlers: {
      async *streamEvents() {
        yield { event: { seq: 1n } };
        throw new Error("geheim");
      },
    },
  });
  const seen: bigint[] = [];
  const failure = await failureOf(
    (async () => {
      for await (const { event } of client.streamEvents({ sessionId })) seen.push(event?.seq ?? 0n);
    })(),
  );
  expect(seen).toEqual([1n]);
  expect([failure.code, failure.rawMessage]).toEqual([Code.Internal, "internal error"]);
});

test("every violated rule is named by its field, no value is", async () => {
  let entered = false;
  const { client } = start({
    handlers: {
      sendTurn() {
        entered = true;
        return {};
      },
    },
  });
  const failure = await failureOf(client.sendTurn({ sessionId: "geheim", text: "", onBusy: 99 as OnBusy }));
  expect(failure.code).toBe(Code.InvalidArgument);
  const fields = failure.findDetails(BadRequestSchema)[0]?.fieldViolations.map((violation) => violation.field);
  expect(fields).toEqual(["session_id", "text", "on_busy"]);
  expect(JSON.stringify(failure)).not.toContain("geheim");
  expect(entered).toBe(false);
});

test("a stream's request is validated, too", async () => {
  const { client } = start({ handlers: { async *streamEvents() {} } });
  const failure = await failureOf(client.streamEvents({ sessionId: "x" })[Symbol.asyncIterator]().next());
  expect(failure.code).toBe(Code.InvalidArgument);
});

test("the deadline is enforced on a handler that does not heed it", async () => {
  const { client } = start({ handlers: { getSession: () => never } });
  const failure = await failureOf(client.getSession({ sessionId }, { headers: { "grpc-timeout": "80m" } }));
  expect(failure.findDetails(ErrorInfoSchema)[0]?.reason).toBe("DEADLINE_EXCEEDED");
});

test("a stream that produces nothing ends at its deadline, and its handler hears of it", async () => {
  let aborted = false;
  const { client } = start({
    deadlines: { unaryMs: 1_000, maxUnaryMs: 1_000, maxStreamMs: 50 },
    handlers: {
      async *streamEvents(_, context) {
        requestContext(context.values).signal.addEventListener("abort", () => (aborted = true));
        yield await never;
      },
    },
  });
  const failure = await failureOf(client.streamEvents({ sessionId })[Symbol.asyncIterator]().next());
  expect(failure.code).toBe(Code.DeadlineExceeded);
  expect(aborted).toBe(true);
});

test.each([
  ["grpc-timeout", "5X"],
  ["grpc-timeout", "999999999H"],
  ["grpc-timeout", "0S"],
  ["grpc-timeout", "6M"],
])("%s: %s is refused", async (name, value) => {
  const { client } = start({ handlers: { getSession: () => ({}) } });
  const failure = await failureOf(client.getSession({ sessionId }, { headers: { [name]: value } }));
  expect(failure.findDetails(ErrorInfoSchema)[0]?.reason).toBe("INVALID_TIMEOUT");
});

test("past the bound of calls at once the next is refused, and taken again when one has ended", async () => {
  let release = (): void => {};
  const held = new Promise<object>((resolve) => (release = () => resolve({})));
  const { client } = start({ maxRunning: 1, handlers: { getSession: () => held } });
  const first = client.getSession({ sessionId });
  const failure = await failureOf(client.getSession({ sessionId }));
  expect(failure.findDetails(ErrorInfoSchema)[0]?.reason).toBe("OVERLOADED");
  release();
  await first;
  await client.getSession({ sessionId });
});

test("an idempotency key that is none is refused", async () => {
  const { client } = start({ handlers: { createSession: () => ({}) } });
  const failure = await failureOf(client.createSession({}, { headers: { "idempotency-key": "x".repeat(256) } }));
  expect(failure.findDetails(ErrorInfoSchema)[0]?.reason).toBe("INVALID_METADATA");
});

test("a stranger's request id is not taken over, a peer's is", async () => {
  const given = newId("req");
  const seen: string[] = [];
  for (const plane of ["edge", "mesh"] as const) {
    const { client } = start({
      plane,
      handlers: {
        getSession(_, context) {
          seen.push(requestContext(context.values).requestId);
          return {};
        },
      },
    });
    await client.getSession({ sessionId }, { headers: { "x-cadre-request": `${given} - 203.0.113.7` } });
  }
  expect(seen[0]).toMatch(/^req_/);
  expect(seen[0]).not.toBe(given);
  expect(seen[1]).toBe(given);
});

test("a call leaves one line, a stream too, at its end", async () => {
  const { client, lines } = start({
    handlers: {
      getSession: () => ({}),
      async *streamEvents() {
        yield {};
      },
    },
  });
  await client.getSession({ sessionId });
  for await (const _ of client.streamEvents({ sessionId })) expect(lines).toHaveLength(1);
  expect(lines.map((line) => [line.msg, line.code])).toEqual([
    ["request", "ok"],
    ["request", "ok"],
  ]);
  // A trace id of its own, also where nobody traces.
  for (const { trace_id } of lines) expect(trace_id).toMatch(/^(?!0{32})[0-9a-f]{32}$/);
});
