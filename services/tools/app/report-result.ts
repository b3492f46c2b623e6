import { createHash } from "node:crypto";
import { canonicalJson } from "../../runtime/json-schema/canonical-json.ts";
import { callLimits, exceedsBytes, type Outcome } from "../domain/call.ts";
import type { Report } from "../store/call-store.ts";
import { handoutKey, type ToolsDeps } from "./deps.ts";
import { resultTooLarge } from "./running-built-ins.ts";

/** How a handler ended. */
export type Reported = Outcome | { readonly type: "cancelled" };

/**
 * Takes a worker's report of a call's end. A result that is too large or does not match the tool's output
 * schema ends the call as TOOL_RESULT_INVALID.
 *
 * @throws AppError CALL_NOT_FOUND
 */
export async function reportResult(
  deps: Pick<ToolsDeps, "calls" | "definitions" | "handouts">,
  report: Report,
  reported: Reported,
): Promise<void> {
  const outcome = reported.type === "result" ? await checkResult(deps, report, reported) : reported;
  // The hash is of what is kept: a result that is refused for its size is not worth more.
  const hash = createHash("sha256")
    .update(canonicalJson({ ...outcome }))
    .digest();
  await deps.calls.end(report, outcome.type === "cancelled" ? "cancelled" : outcome, hash);
}

async function checkResult(
  deps: Pick<ToolsDeps, "calls" | "definitions" | "handouts">,
  report: Report,
  result: Outcome & { readonly type: "result" },
): Promise<Outcome> {
  if (exceedsBytes(result.value, callLimits.maxJsonBytes)) {
    const { reason, message } = resultTooLarge();
    return { type: "error", reason, message };
  }
  const known = deps.handouts.get(handoutKey(report.workerId, report.handoutId));
  const { toolId, digest } = known ?? (await deps.calls.definitionOf(report));
  const checked = await deps.definitions.get(report.orgId, toolId, digest);
  const violations = checked?.output?.validate(result.value) ?? [];
  if (violations.length === 0) return result;
  const places = violations.map(({ field, message }) => `${field || "/"} ${message}`).join("; ");
  return {
    type: "error",
    reason: "TOOL_RESULT_INVALID",
    message: `the result does not match the tool's output schema: ${places}`.slice(0, 2_000),
  };
}
