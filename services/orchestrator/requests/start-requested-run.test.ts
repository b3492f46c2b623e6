import { create, toBinary } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Role } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { type Principal, PrincipalKind, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { RunRequestedSchema, RunRequestSchema } from "@cadre/gen/cadre/events/v1/run_request_pb";
import { expect, test } from "vitest";
import { requestEvent } from "../../../test/support/run-requests.ts";
import { UndecodableError } from "../../runtime/bus/consumer/decode.ts";
import { AppError, type FailureReason } from "../../runtime/errors/app-error.ts";
import { newId } from "../../runtime/ids/id.ts";
import type { Asking } from "../app/graph/start-run.ts";
import { startRequestedRun } from "./start-requested-run.ts";

const orgId = newId("org");
const requestId = newId("req");
const traceparent = `00-${"4b".repeat(16)}-${"00f0".repeat(4)}-01`;
const member = (more: Partial<Principal> = {}) =>
  create(PrincipalSchema, {
    kind: PrincipalKind.KEY,
    subject: newId("key"),
    orgId,
    role: Role.MEMBER,
    scopes: ["runs.write"],
    ...more,
  } as never);

const asked = toBinary(
  RunRequestSchema,
  create(RunRequestSchema, { run: { definition: { case: "agent", value: "report" } }, idempotencyKey: "k" }),
);

/** Handles a request; gives what was started, or throws. */
async function handle(principal: Principal | FailureReason, started?: FailureReason, request = asked) {
  const event = await requestEvent({ orgId, request, token: "t", requestId, traceparent });
  const metadata = { eventId: newId("evt"), seq: 1n, at: timestampNow(), orgId, requestId };
  const fact = create(RunRequestedSchema, { metadata, request, token: "t" });
  const received = { ...event, partition: 0, offset: 0n, publishedAt: new Date() };
  const starts: Asking[] = [];
  const deps = {
    authority: {
      async authenticate() {
        if (typeof principal === "string") throw new AppError(principal, "no");
        return principal;
      },
    },
    async startRun(_: unknown, asking: Asking) {
      starts.push(asking);
      if (started !== undefined) throw new AppError(started, "no");
    },
  };
  const decoded = { event: received, fact, eventId: metadata.eventId, orgId };
  await startRequestedRun(deps, decoded, new AbortController().signal);
  return starts;
}

const outcomeOf = async (handling: Promise<unknown>): Promise<string> => {
  try {
    await handling;
    return "started";
  } catch (thrown) {
    if (thrown instanceof UndecodableError) return `refused: ${thrown.cause.reason}`;
    return thrown instanceof AppError ? `again: ${thrown.reason}` : String(thrown);
  }
};

test("a run is started for whom the token stands for, with the request's id, trace and key", async () => {
  const principal = member();
  expect(await handle(principal)).toEqual([{ principal, requestId, traceparent, idempotencyKey: "k" }]);
});

test.each<[string, () => Promise<unknown>, string]>([
  ["who is nobody", () => handle("UNAUTHENTICATED"), "refused: UNAUTHENTICATED"],
  ["who is of another org", () => handle(member({ orgId: newId("org") })), "refused: TENANT_MISMATCH"],
  ["who may not", () => handle(member({ scopes: ["runs.read"] })), "refused: SCOPE_MISSING"],
  ["what is no request", () => handle(member(), undefined, new Uint8Array([255])), "refused: MALFORMED_MESSAGE"],
  ["what breaks a rule", () => handle(member(), undefined, new Uint8Array([18, 1, 107])), "refused: INVALID_ARGUMENT"],
  ["what the engine refuses", () => handle(member(), "LIMIT_EXCEEDED"), "refused: LIMIT_EXCEEDED"],
  ["what cannot be checked now", () => handle("UNAVAILABLE"), "again: UNAVAILABLE"],
  ["what has to wait", () => handle(member(), "BACKPRESSURE"), "again: UNAVAILABLE"],
  ["what somebody else starts now", () => handle(member(), "IDEMPOTENCY_IN_PROGRESS"), "again: UNAVAILABLE"],
  ["what took too long", () => handle(member(), "DEADLINE_EXCEEDED"), "again: DEADLINE_EXCEEDED"],
  ["a bug", () => handle(member(), "INTERNAL"), "again: INTERNAL"],
])("%s", async (_, handling, expected) => {
  expect(await outcomeOf(handling())).toBe(expected);
});
