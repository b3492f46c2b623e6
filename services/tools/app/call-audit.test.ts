import { randomUUID } from "node:crypto";
import { AuditDecision } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { expect, test } from "vitest";
import type { Denial } from "../../runtime/audit/denial-log.ts";
import { AppError, type FailureReason } from "../../runtime/errors/app-error.ts";
import { fromUuid, newId } from "../../runtime/ids/id.ts";
import { type AuditedCall, CallAudit } from "./call-audit.ts";

function start() {
  const written: Denial[] = [];
  let nowMs = 0;
  const audit = new CallAudit({ record: async (denial) => void written.push(denial) }, () => nowMs);
  return { audit, written, advance: (ms: number) => (nowMs += ms) };
}

function step(fields: Partial<AuditedCall> = {}): AuditedCall {
  const ids = { orgId: randomUUID(), toolId: randomUUID(), runId: newId("run"), stepId: newId("stp") };
  return { ...ids, actor: "key_1", traceparent: "", requestId: newId("req"), ...fields };
}

const failed = (reason: FailureReason) => ({ type: "error", reason, message: "a secret" }) as const;

test("a refused call is on record with tool, run, step and caller", async () => {
  const { audit, written } = start();
  const call = step();
  await audit.refused(call, new AppError("EPOCH_STALE", "the key was used with a higher epoch"));
  expect(written).toMatchObject([
    {
      type: "tool.denied",
      decision: AuditDecision.DENIED,
      reason: "EPOCH_STALE",
      orgId: fromUuid("org", call.orgId),
      actor: "key_1",
      resource: `tool/${fromUuid("tool", call.toolId)} run/${call.runId} step/${call.stepId}`,
      requestId: call.requestId,
    },
  ]);
});

test.each<[FailureReason, string | undefined]>([
  ["EGRESS_DENIED", "tool.denied"],
  ["TOOL_FAILED", "tool.failed"],
  ["TOOL_RESULT_INVALID", "tool.failed"],
  ["DEADLINE_EXCEEDED", "tool.failed"],
  ["CANCELLED", undefined],
])("a call that ended with %s is %s, and its outcome is given back", async (reason, type) => {
  const { audit, written } = start();
  const outcome = failed(reason);
  expect(await audit.ended(step(), outcome)).toBe(outcome);
  expect(written.map((denial) => denial.type)).toEqual(type === undefined ? [] : [type]);
  expect(JSON.stringify(written)).not.toContain("secret");
});

test("what is passing, or written by somebody else, is not written", async () => {
  const { audit, written } = start();
  for (const reason of ["TOOL_UNAVAILABLE", "UNAVAILABLE", "IDEMPOTENCY_KEY_REUSED", "LIMIT_EXCEEDED"] as const) {
    await audit.refused(step(), new AppError(reason, "no"));
  }
  expect(audit.ended(step(), { type: "result", value: 1 })).toEqual({ type: "result", value: 1 });
  expect(written).toEqual([]);
});

test("an org names a hundred steps a minute, and takes nothing from another", async () => {
  const { audit, written, advance } = start();
  const orgId = randomUUID();
  for (let index = 0; index < 150; index++) await audit.ended(step({ orgId }), failed("TOOL_FAILED"));
  expect(written.filter(({ perResource }) => perResource)).toHaveLength(100);
  expect(written.slice(100).every(({ resource }) => /^tool\/tool_[0-9a-z]{26}$/.test(resource))).toBe(true);
  await audit.ended(step(), failed("TOOL_FAILED"));
  advance(60_000);
  await audit.ended(step({ orgId }), failed("TOOL_FAILED"));
  expect(written.slice(150).map(({ perResource }) => perResource)).toEqual([true, true]);
});
