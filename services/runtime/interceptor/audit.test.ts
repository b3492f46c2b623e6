import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AuditDecision, type AuditEvent, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { createClient, createRouterTransport, type Interceptor, type ServiceImpl } from "@connectrpc/connect";
import { metrics, trace } from "@opentelemetry/api";
import { pino } from "pino";
import { afterEach, describe, expect, test } from "vitest";
import { reasonOf } from "../../../test/support/failure.ts";
import type { AuditSink } from "../audit/audit-sink.ts";
import { createBatchingAuditSink } from "../audit/batching-audit-sink.ts";
import { createDenialLog, type Denial, type DenialLog } from "../audit/denial-log.ts";
import { AppError, type FailureReason } from "../errors/app-error.ts";
import { refused } from "../identity/refusal.ts";
import { newId } from "../ids/id.ts";
import { requestContext } from "../rpc/request-context.ts";
import { audit } from "./audit.ts";
import { errors } from "./errors.ts";
import { telemetry } from "./telemetry.ts";

const log = pino({ level: "silent" });
const orgId = newId("org");
const actor = newId("key");
const running: DenialLog[] = [];
afterEach(async () => {
  for (const denials of running.splice(0)) await denials.stop();
});

interface Setup {
  readonly plane?: "edge" | "mesh";
  readonly callingService?: string;
  /** Thrown where authentication and authorization stand. */
  readonly refusal?: AppError;
  readonly handlers?: Partial<ServiceImpl<typeof SessionService>>;
  readonly sinkFails?: () => boolean;
}

function start({ plane = "edge", callingService, refusal, handlers, sinkFails = () => false }: Setup) {
  const order: string[] = [];
  const written: AuditEvent[] = [];
  const sink: AuditSink = {
    async append(event) {
      if (sinkFails()) throw new AppError("AUTHZ_UNAVAILABLE", "the audit log cannot be written");
      order.push(`audit ${event.type}`);
      written.push(fromBinary(AuditEventSchema, toBinary(AuditEventSchema, event)));
    },
  };
  const denials = createDenialLog({ sink, log });
  running.push(denials);
  const identify: Interceptor = (next) => (request) => {
    const context = requestContext(request.contextValues);
    context.callingService = callingService;
    if (refusal !== undefined) throw refusal;
    context.principal = create(PrincipalSchema, { subject: actor, orgId, role: Role.OWNER });
    return next(request);
  };
  const audited = audit({ plane, sink, denials, log });
  const interceptors = [
    telemetry({ host: "t", plane, tracer: trace.getTracer("t"), meter: metrics.getMeter("t"), log }),
    errors(log),
    audited.denied,
    identify,
    audited.allowed,
  ];
  const transport = createRouterTransport(
    ({ service }) =>
      service(SessionService, {
        deleteSession() {
          order.push("executed");
          return {};
        },
        ...handlers,
      }),
    { router: { interceptors } },
  );
  return { client: createClient(SessionService, transport), written, order, denials };
}

const sessionId = newId("ses");

describe("a method that declares an audit event", () => {
  test("is written before it is executed, with who, what and where", async () => {
    const { client, written, order } = start({});
    await client.deleteSession({ sessionId });
    expect(order).toEqual(["audit session.deleted", "executed"]);
    expect(written[0]).toMatchObject({
      type: "session.deleted",
      decision: AuditDecision.ALLOWED,
      actor,
      orgId,
      action: "cadre.orchestrator.v1.SessionService/DeleteSession",
      resource: `session/${sessionId}`,
      reason: "",
    });
  });

  test("is not executed if that cannot be written", async () => {
    const { client, order } = start({ sinkFails: () => true });
    expect(await reasonOf(client.deleteSession({ sessionId }))).toBe("AUTHZ_UNAVAILABLE");
    expect(order).toEqual([]);
  });

  test("leaves a second entry with the reason if it fails", async () => {
    const { client, written } = start({
      handlers: {
        deleteSession() {
          throw new AppError("SESSION_NOT_FOUND", "no such session");
        },
      },
    });
    expect(await reasonOf(client.deleteSession({ sessionId }))).toBe("SESSION_NOT_FOUND");
    expect(written.map(({ type, reason }) => [type, reason])).toEqual([
      ["session.deleted", ""],
      ["session.deleted", "SESSION_NOT_FOUND"],
    ]);
  });

  test("is written where the request was let in: not again behind the gateway, but for other services", async () => {
    const forwarded = start({ plane: "mesh", callingService: "gateway" });
    await forwarded.client.deleteSession({ sessionId });
    expect(forwarded.order).toEqual(["executed"]);
    const own = start({ plane: "mesh", callingService: "tools" });
    await own.client.deleteSession({ sessionId });
    expect(own.order).toEqual(["audit session.deleted", "executed"]);
  });
});

test("a method that declares none leaves nothing", async () => {
  const { client, written } = start({ handlers: { getSession: () => ({}) } });
  await client.getSession({ sessionId });
  expect(written).toEqual([]);
});

describe("what is refused", () => {
  const table: [FailureReason, string][] = [
    ["SCOPE_MISSING", "authz.denied"],
    ["ROLE_TOO_LOW", "authz.denied"],
    ["TENANT_MISMATCH", "authz.denied"],
    ["CALLER_NOT_ALLOWED", "authz.denied"],
    ["AUTHZ_UNAVAILABLE", "authz.denied"],
    ["POLICY_DENIED", "authz.denied"],
    ["GRANT_TOO_WIDE", "authz.denied"],
    ["RATE_LIMITED", "quota.exceeded"],
    ["LIMIT_EXCEEDED", "limit.exceeded"],
    ["IDEMPOTENCY_KEY_REUSED", "idempotency.conflict"],
    ["SCHEMA_INCOMPATIBLE", "schema.rejected"],
  ];
  test.each(table)("%s is written as %s before it is answered", async (reason, type) => {
    const { client, written } = start({ refusal: new AppError(reason, "no") });
    expect(await reasonOf(client.getSession({ sessionId }))).toBe(reason);
    const resource = ["quota.exceeded", "limit.exceeded"].includes(type) ? "limit" : `session/${sessionId}`;
    expect(written).toMatchObject([{ type, reason, decision: AuditDecision.DENIED, resource }]);
  });

  test("a credential is written with its true reason, which the answer does not have", async () => {
    const { client, written } = start({ refusal: refused("CHECKSUM", { actor: "cdr_dev_abcd" }) });
    const thrown = await client.getSession({ sessionId }).then(
      () => "",
      (error: unknown) => String(error),
    );
    expect(thrown).not.toContain("CHECKSUM");
    expect(written).toMatchObject([{ type: "auth.failed", reason: "CHECKSUM", actor: "cdr_dev_abcd" }]);
  });

  test("is not written again where credentials wrote it, or where the gateway will", async () => {
    const known = start({ refusal: refused("REFUSED", { audited: true }) });
    await reasonOf(known.client.getSession({ sessionId }));
    const forwarded = start({
      plane: "mesh",
      callingService: "gateway",
      refusal: new AppError("TOOL_NOT_GRANTED", "no"),
    });
    await reasonOf(forwarded.client.getSession({ sessionId }));
    expect([...known.written, ...forwarded.written]).toEqual([]);
  });

  test("in the middle of a stream is written, too", async () => {
    const { client, written } = start({
      handlers: {
        async *streamEvents() {
          yield {};
          throw new AppError("PRINCIPAL_REVOKED", "no more");
        },
      },
    });
    const read = async (): Promise<void> => {
      for await (const _ of client.streamEvents({ sessionId }));
    };
    expect(await reasonOf(read())).toBe("PRINCIPAL_REVOKED");
    expect(written).toMatchObject([{ type: "authz.denied", reason: "PRINCIPAL_REVOKED" }]);
  });

  test("stays refused when it cannot be written, and is written with its count when it can", async () => {
    let fails = true;
    const { client, written, denials } = start({
      refusal: new AppError("SCOPE_MISSING", "no"),
      sinkFails: () => fails,
    });
    for (let index = 0; index < 3; index++)
      expect(await reasonOf(client.getSession({ sessionId }))).toBe("SCOPE_MISSING");
    expect(written).toEqual([]);
    fails = false;
    await denials.flush();
    expect(written.map(({ count }) => count)).toEqual([3]);
  });

  test("that is no refusal but a fault or a miss leaves nothing", async () => {
    const { client, written } = start({
      handlers: {
        getSession() {
          throw new AppError("SESSION_NOT_FOUND", "no such session");
        },
      },
    });
    await reasonOf(client.getSession({ sessionId }));
    expect(written).toEqual([]);
  });
});

describe("a flood of refusals", () => {
  const denial = (fields: Partial<Denial>): Denial => ({
    type: "auth.failed",
    reason: "UNKNOWN",
    orgId: "",
    actor: "",
    action: "a.B/C",
    resource: "",
    source: "192.0.2.1",
    requestId: "",
    traceId: "",
    ...fields,
  });

  test("is one row at once and one a minute, and no count is lost", async () => {
    const written: AuditEvent[] = [];
    const sink = createBatchingAuditSink(async (events) => void written.push(...events));
    const denials = createDenialLog({ sink, log });
    for (let index = 0; index < 1_000; index++) await denials.record(denial({}));
    expect(written.map(({ count }) => count)).toEqual([1]);
    await denials.stop();
    expect(written.map(({ count }) => count)).toEqual([1, 999]);
  });

  test("of ever new kinds is held in bounded memory, and counted", async () => {
    let total = 0;
    const sink = createBatchingAuditSink(async (events) => {
      for (const { count } of events) total += count;
    });
    const denials = createDenialLog({ sink, log });
    await Promise.all(Array.from({ length: 12_000 }, (_, index) => denials.record(denial({ source: `${index}` }))));
    await denials.stop();
    expect(total).toBe(12_000);
  });
});

test("one batch is under way, and the next takes what came meanwhile", async () => {
  const batches: number[] = [];
  let release: () => void = () => {};
  const sink = createBatchingAuditSink(async (events) => {
    batches.push(events.length);
    await new Promise<void>((resolve) => {
      release = resolve;
    });
  });
  const event = create(AuditEventSchema, {});
  const appended = Array.from({ length: 10 }, () => sink.append(event));
  release();
  await appended[0];
  release();
  await Promise.all(appended);
  expect(batches).toEqual([1, 9]);
});
