import { AuditDecision } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import type { DenialLog } from "../../runtime/audit/denial-log.ts";
import { BoundedMap } from "../../runtime/cache/bounded-map.ts";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import { traceIdOf } from "../../runtime/telemetry/traceparent.ts";
import type { Outcome } from "../domain/call.ts";

/** Of a call, what the audit log is told. Ids of org and tool are UUIDs. */
export interface AuditedCall {
  readonly orgId: string;
  readonly toolId: string;
  /** As ids; empty for a call that is no step of a run. */
  readonly runId: string;
  readonly stepId: string;
  /** The principal that calls. */
  readonly actor: string;
  readonly traceparent: string;
  readonly requestId: string;
}

/** What refuses a call before the tool hears of it, and is written by nobody else. */
const refusals: ReadonlySet<FailureReason> = new Set([
  "TOOL_NOT_FOUND",
  "DEFINITION_CHANGED",
  "TOOL_ARGUMENTS_INVALID",
  "EPOCH_STALE",
]);

const windowMs = 60_000;
/** Calls of steps that are named within a minute, of one org; further ones are counted together. */
const maxStepsAWindow = 100;
const maxOrgs = 10_000;

/**
 * Writes calls that were refused (`tool.denied`) or failed (`tool.failed`) to
 * the audit log: tool, run and step, and the reason; never an argument or what
 * a tool says. Each step is a row of its own, for at most 100 calls of an org a
 * minute; all others of one reason and caller are a row a minute.
 */
export class CallAudit {
  readonly #denials: Pick<DenialLog, "record">;
  readonly #now: () => number;
  readonly #steps = new BoundedMap<string, { named: number; readonly endsMs: number }>(maxOrgs);

  /** @param now monotonic milliseconds */
  constructor(denials: Pick<DenialLog, "record">, now: () => number = () => performance.now()) {
    this.#denials = denials;
    this.#now = now;
  }

  /** Notes a call that failed without an outcome, if it was refused. Never rejects. */
  async refused(call: AuditedCall, thrown: unknown): Promise<void> {
    const { reason } = toAppError(thrown);
    if (refusals.has(reason)) await this.#record("tool.denied", call, reason);
  }

  /**
   * Notes a call's end, and gives back its outcome. What was denied is on
   * record before its caller is told; a failure holds nobody up.
   */
  ended(call: AuditedCall, outcome: Outcome): Outcome | Promise<Outcome> {
    if (outcome.type === "result" || outcome.reason === "CANCELLED") return outcome;
    if (outcome.reason === "EGRESS_DENIED") {
      return this.#record("tool.denied", call, outcome.reason).then(() => outcome);
    }
    void this.#record("tool.failed", call, outcome.reason);
    return outcome;
  }

  #record(type: "tool.denied" | "tool.failed", call: AuditedCall, reason: FailureReason): Promise<void> {
    const tool = `tool/${fromUuid("tool", call.toolId)}`;
    const isNamed = call.stepId !== "" && this.#mayName(call.orgId);
    return this.#denials.record({
      type,
      decision: type === "tool.failed" ? AuditDecision.ALLOWED : AuditDecision.DENIED,
      reason,
      orgId: fromUuid("org", call.orgId),
      actor: call.actor,
      action: "call",
      resource: isNamed ? `${tool} run/${call.runId} step/${call.stepId}` : tool,
      perResource: isNamed,
      source: "",
      requestId: call.requestId,
      traceId: traceIdOf(call.traceparent),
    });
  }

  #mayName(orgId: string): boolean {
    const now = this.#now();
    let steps = this.#steps.get(orgId);
    if (steps === undefined || steps.endsMs <= now) {
      steps = { named: 0, endsMs: now + windowMs };
      this.#steps.set(orgId, steps);
    }
    steps.named += 1;
    return steps.named <= maxStepsAWindow;
  }
}
