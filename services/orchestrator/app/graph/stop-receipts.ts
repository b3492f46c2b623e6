import type { EntryBody, Receipt, StepPlace } from "../../domain/entry.ts";
import type { PlanNode } from "../../domain/graph/plan.ts";
import { itemPlace, listOf } from "../../domain/graph-decisions.ts";
import { type GraphRun, placeOf } from "../../domain/graph-run.ts";
import { callsInFlight } from "../../domain/next-action.ts";

/** What a run that is being stopped asks. */
export interface Stopping {
  /** The steps that are under way here, by their ids. */
  readonly flights: readonly { readonly place: StepPlace; readonly stepId: string }[];
  /** Cancels the call of a step, and says how far it had got. */
  cancel(stepId: string): Promise<Receipt>;
  /** Cancels a child and waits for its end. */
  stopChild(runId: string): Promise<Receipt>;
}

/**
 * Asks how far everything had got that may be under way, here or in a process
 * that is gone: what was never begun, and was handed out nowhere, is left out.
 */
export async function receiptsOf(run: GraphRun, stopping: Stopping) {
  const { flights } = stopping;
  const asked: Promise<Extract<EntryBody, { type: "step.cancelled" }>[]>[] = [];
  const ask = (place: StepPlace, tool: boolean): void => {
    const stepId = run.stepIdAt(place);
    const step = run.at(place);
    asked.push(
      (async () => {
        let receipt: Receipt = "not-started";
        if (step?.loop !== undefined) {
          for (const call of callsInFlight(step.loop)) receipt = worse(receipt, await stopping.cancel(call.stepId));
        } else if (step?.wait?.for === "child") {
          receipt = await stopping.stopChild(step.wait.runId);
        } else if (tool) {
          receipt = await stopping.cancel(stepId);
        }
        const known = step !== undefined || flights.some((flight) => flight.stepId === stepId);
        return known || receipt !== "not-started" ? [{ type: "step.cancelled" as const, stepId, place, receipt }] : [];
      })(),
    );
  };
  for (const node of run.plan.nodes) {
    const step = run.steps[node.position];
    if (step?.phase === "failed" && node.task.kind === "fan-out") {
      // Elements that were under way when another one failed.
      for (const { place } of flights) {
        if (place.name === node.name && place.index !== undefined) ask(place, node.task.task.kind === "tool");
      }
    }
    if (step?.endedAtMs !== undefined || !run.isReady(node)) continue;
    if (node.task.kind === "fan-out") {
      const isTool = node.task.task.kind === "tool";
      const count = countOf(run, node);
      for (let index = 0; index < count; index += 1) {
        if (step?.items[index]?.endedAtMs === undefined) ask(itemPlace(node.name, index), isTool);
      }
      if (step !== undefined || count > 0) {
        asked.push(
          Promise.all([...asked]).then(() =>
            run.steps[node.position] === undefined && !flights.some(({ place }) => place.name === node.name)
              ? []
              : [
                  {
                    type: "step.cancelled" as const,
                    stepId: run.stepIdAt(placeOf(node.name)),
                    place: placeOf(node.name),
                    receipt: "partial" as const,
                  },
                ],
          ),
        );
      }
    } else {
      ask(placeOf(node.name), node.task.kind === "tool");
    }
  }
  return (await Promise.all(asked)).flat();
}

function countOf(run: GraphRun, node: PlanNode): number {
  try {
    return listOf(run, node).length;
  } catch {
    return 0; // what cannot be evaluated was never begun
  }
}

const severity: readonly Receipt[] = ["not-started", "done", "partial", "may-still-run"];

function worse(a: Receipt, b: Receipt): Receipt {
  return severity.indexOf(a) >= severity.indexOf(b) ? a : b;
}
