import { compileJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import type { EntryBody } from "./entry.ts";
import { type Action, nextAction } from "./next-action.ts";
import { type Problem, wordsOf } from "./replay-problem.ts";
import type { Run } from "./run.ts";

/** Why this code would not have made an entry of a turn in this state; what the fold refuses is not looked at. */
export function turnProblemOf(run: Run, body: EntryBody): Problem | undefined {
  const action = nextAction(run);
  const problem = (message: string): Problem => ({ message, expected: inWords(action), found: wordsOf(body) });
  switch (body.type) {
    case "run.started":
      return action.type === "start" ? undefined : problem("it does not start here");
    case "step.started": {
      const { plan, stepId, attempt } = body;
      if (plan.within !== undefined) return problem("it belongs to a graph");
      const next =
        plan.kind === "model"
          ? action.type === "model" && action.stepId === stepId && action.attempt === attempt
          : action.type === "tools" && action.calls.some((call) => call.stepId === stepId && call.attempt === attempt);
      return next ? undefined : problem("another step is next");
    }
    case "answer.rejected":
      if (action.type !== "check-answer" || action.stepId !== body.stepId) return problem("no answer is to be checked");
      return holds(action) ? problem("the answer holds to its schema") : undefined;
    case "cancel.requested":
      return run.cancel === undefined ? undefined : problem("it is cancelled already");
    case "run.ended":
      return problemOfEnd(run, body, action, problem);
    default:
      return undefined;
  }
}

/** Reasons for which a turn fails by a decision alone. */
const decided: ReadonlySet<string> = new Set(["ANSWER_INVALID", "MODEL_FAILED"]);

function problemOfEnd(
  run: Run,
  { end, started }: Extract<EntryBody, { type: "run.ended" }>,
  action: Action,
  problem: (message: string) => Problem,
): Problem | undefined {
  if (started !== (run.started !== undefined)) return problem(`it ${started ? "did not begin" : "had begun"}`);
  switch (end.state) {
    case "cancelled":
      return run.cancel === undefined ? problem("nobody cancelled it") : undefined;
    case "succeeded":
      if (action.type === "end" && action.end.state === "succeeded") return undefined;
      if (action.type === "check-answer" && holds(action)) return undefined;
      return problem("it has no answer that it could end with");
    case "failed":
      if (decided.has(end.error.reason) && action.type !== "end") return problem("it does not end here");
      // Its time may be up, its principal revoked or its tools gone at any moment.
      return action.type === "end" && (action.end.state !== "failed" || action.end.error.reason !== end.error.reason)
        ? problem("it ends otherwise")
        : undefined;
  }
}

/** Whether an answer holds to its schema. */
export function holds({ answer, schema }: Extract<Action, { type: "check-answer" }>): boolean {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    return false;
  }
  return compileJsonSchema(schema as never).validate(value as never).length === 0;
}

function inWords(action: Action): string {
  switch (action.type) {
    case "model":
      return `step.started ${action.stepId}, attempt ${action.attempt}`;
    case "tools":
      return action.calls.map(({ stepId, attempt }) => `step.started ${stepId}, attempt ${attempt}`).join(" or ");
    case "end":
      return `run.ended: ${action.end.state}`;
    case "check-answer":
      return `the answer of ${action.stepId} is held to its schema`;
    default:
      return action.type;
  }
}
