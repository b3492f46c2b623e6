import { create } from "@bufbuild/protobuf";
import { StepChange, type StepChanged, StepChangedSchema, StepKind } from "@cadre/gen/cadre/events/v1/run_pb";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import type { Entry, StepPlace } from "../domain/entry.ts";
import { placeKey } from "../domain/graph-run.ts";
import { factId, stepId as stepIdOf } from "../domain/step-id.ts";
import { type JournaledEntry, metadataOf } from "./fact-metadata.ts";
import type { RunOutline } from "./run-outline.ts";

/** The fact that an entry states about a step of its run; undefined for an entry that states none. */
export function toStepChanged(journaled: JournaledEntry, outline: RunOutline): StepChanged | undefined {
  const { runId, seq, entry } = journaled;
  const step = stepOf(runId, entry, outline);
  // A step that the graph lacks is damage, for whoever goes on with the run to find.
  if (step?.kind === undefined) return undefined;
  const { place, reason, kind, ...said } = step;
  return create(StepChangedSchema, {
    ...said,
    kind,
    metadata: metadataOf(journaled, factId(runId, "step", seq), seq),
    runId,
    ...(place === undefined ? {} : { name: place.name, compensation: place.compensation }),
    ...(place?.index === undefined ? {} : { index: place.index }),
    ...(reason === undefined ? {} : { reason: reasonNumber(reason) }),
  });
}

interface Step {
  readonly stepId: string;
  readonly kind: StepKind | undefined;
  /** In its graph; undefined in a turn. */
  readonly place: StepPlace | undefined;
  readonly attempt: number;
  readonly change: StepChange;
  readonly reason?: FailureReason;
  readonly mayRetry?: boolean;
}

function stepOf(runId: string, { body }: Entry, outline: RunOutline): Step | undefined {
  switch (body.type) {
    case "step.started":
      return {
        stepId: body.stepId,
        kind: body.plan.kind === "model" ? StepKind.MODEL : StepKind.TOOL,
        place: body.plan.within,
        attempt: body.attempt,
        change: StepChange.STARTED,
      };
    case "step.succeeded": {
      const { stepId, attempt, result } = body;
      const kind = result.kind === "model" ? StepKind.MODEL : StepKind.TOOL;
      const step = { stepId, kind, place: outline.callOf(stepId)?.within, attempt };
      // An agent goes on with what a tool's failure says; as a step it failed all the same.
      return result.kind === "tool" && result.outcome.type === "error"
        ? { ...step, change: StepChange.FAILED, reason: result.outcome.error.reason }
        : { ...step, change: StepChange.SUCCEEDED };
    }
    case "step.failed": {
      const { stepId, attempt, error, retryable } = body;
      const call = outline.callOf(stepId);
      const kind = call?.kind === "tool" ? StepKind.TOOL : StepKind.MODEL;
      const failed = { change: StepChange.FAILED, reason: error.reason, mayRetry: retryable };
      return { stepId, kind, place: call?.within, attempt, ...failed };
    }
    case "graph.step.started":
      return { ...graphStep(body, outline), attempt: body.attempt, change: StepChange.STARTED };
    case "graph.step.succeeded":
      return { ...graphStep(body, outline), attempt: body.attempt, change: StepChange.SUCCEEDED };
    case "graph.step.failed": {
      const { attempt, error, retryAtMs } = body;
      const failed = { change: StepChange.FAILED, reason: error.reason, mayRetry: retryAtMs !== undefined };
      return { ...graphStep(body, outline), attempt, ...failed };
    }
    case "step.waiting":
      return { ...graphStep(body, outline), attempt: 0, change: StepChange.WAITING };
    case "step.cancelled":
      return { ...graphStep(body, outline), attempt: 0, change: StepChange.CANCELLED };
    case "step.skipped": {
      const { place } = body;
      const stepId = stepIdOf(runId, `step:${placeKey(place)}`);
      return { ...graphStep({ stepId, place }, outline), attempt: 0, change: StepChange.SKIPPED };
    }
    default:
      return undefined;
  }
}

function graphStep({ stepId, place }: { readonly stepId: string; readonly place: StepPlace }, outline: RunOutline) {
  return { stepId, place, kind: outline.kindAt(place) };
}
