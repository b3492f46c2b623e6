/**
 * What the relay remembers of a run so that it can say what a step was: an
 * entry has a step's id and its place, and not always what was done there.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { StepKind } from "@cadre/gen/cadre/events/v1/run_pb";
import { EntryOriginSchema, EntrySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import type { Step } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import type { EntryBody, StepPlace } from "../domain/entry.ts";
import { placeKey } from "../domain/graph-run.ts";
import { damaged } from "../domain/run.ts";
import type { RunOrigin } from "./fact-metadata.ts";

/** A call of a model or a tool in a turn, or within an agent's step. */
export interface RoundCall {
  readonly kind: "model" | "tool";
  /** The agent's step in its graph; undefined in a turn. */
  readonly within: StepPlace | undefined;
  /** The tool's name as the model wrote it; undefined of a model. */
  readonly tool: string | undefined;
}

interface GraphStep {
  readonly kind: StepKind;
  /** The tool that it calls, or that is called for each element. */
  readonly tool: string | undefined;
  readonly compensation: string | undefined;
  /** Of a fan-out: what is done for each element. */
  readonly itemKind: StepKind | undefined;
}

/** What is known of a run. */
export class RunOutline {
  readonly origin: RunOrigin;
  readonly #steps: ReadonlyMap<string, GraphStep>;
  readonly #calls = new Map<string, RoundCall & { readonly round: string }>();
  /** The tools that a model's answer asked for, by its round. */
  readonly #asked = new Map<string, readonly string[]>();

  /**
   * @param accepted the run's first entry, as it is stored
   * @param withSteps whether it is asked for steps: else the graph is passed over
   * @throws AppError DATA_LOSS if it is no first entry
   */
  constructor(accepted: Uint8Array, withSteps: boolean) {
    const { runAccepted } = fromBinary(EntryOriginSchema, accepted, { readUnknownFields: false });
    if (runAccepted === undefined) throw damaged("does not begin with its acceptance");
    this.origin = runAccepted;
    this.#steps = withSteps && runAccepted.sessionId === "" ? stepsOf(accepted) : new Map();
  }

  /** The call of a step of a round; undefined if its beginning was not noted. */
  callOf(stepId: string): RoundCall | undefined {
    return this.#calls.get(stepId);
  }

  /** What kind of step is at a place of the graph; undefined if the graph has no such step. */
  kindAt({ name, index, compensation }: StepPlace): StepKind | undefined {
    const step = this.#steps.get(name);
    if (step === undefined) return undefined;
    if (compensation) return StepKind.TOOL;
    return index === undefined ? step.kind : step.itemKind;
  }

  /** The tool that the step at a place calls; undefined if it calls none by itself. */
  toolAt({ name, index, compensation }: StepPlace): string | undefined {
    const step = this.#steps.get(name);
    if (compensation) return step?.compensation;
    return index === undefined && step?.kind === StepKind.FAN_OUT ? undefined : step?.tool;
  }

  /** Whether earlier entries are needed to tell what an entry is about. */
  lacks(body: EntryBody): boolean {
    switch (body.type) {
      case "step.started":
        return body.plan.kind === "tool" && !this.#asked.has(roundKey(body.plan));
      case "step.succeeded":
      case "step.failed":
        return !this.#calls.has(body.stepId);
      default:
        return false;
    }
  }

  /** Notes what later entries are told apart by. */
  note(body: EntryBody): void {
    if (body.type === "step.started") {
      const { stepId, plan } = body;
      const round = roundKey(plan);
      const tool = plan.kind === "tool" ? this.#asked.get(round)?.[plan.index] : undefined;
      this.#calls.set(stepId, { kind: plan.kind, within: plan.within, tool, round });
    } else if (body.type === "step.succeeded" && body.result.kind === "model") {
      const call = this.#calls.get(body.stepId);
      if (call !== undefined) {
        this.#asked.set(
          call.round,
          body.result.toolCalls.map(({ tool }) => tool),
        );
      }
    }
  }
}

function roundKey({ within, round }: { readonly within: StepPlace | undefined; readonly round: number }): string {
  return `${within === undefined ? "" : placeKey(within)}/${round}`;
}

/** The steps of a run's graph by their names; none of a turn. */
function stepsOf(accepted: Uint8Array): ReadonlyMap<string, GraphStep> {
  const { body } = fromBinary(EntrySchema, accepted);
  const input = body.case === "runAccepted" ? body.value.input : undefined;
  const steps = input?.case === "graph" ? (input.value.graph?.steps ?? []) : [];
  return new Map(steps.map((step) => [step.name, toGraphStep(step)]));
}

function toGraphStep({ task, compensation }: Step): GraphStep {
  const inner = task.case === "fanOut" ? task.value.task : task;
  return {
    kind: task.case === undefined ? StepKind.UNSPECIFIED : kinds[task.case],
    itemKind: task.case === "fanOut" && inner.case !== undefined ? kinds[inner.case] : undefined,
    tool: inner.case === "tool" ? inner.value.tool : undefined,
    compensation: compensation?.tool,
  };
}

const kinds: Readonly<Record<NonNullable<Step["task"]["case"]>, StepKind>> = {
  model: StepKind.MODEL,
  tool: StepKind.TOOL,
  agent: StepKind.AGENT,
  approval: StepKind.APPROVAL,
  timer: StepKind.TIMER,
  signal: StepKind.SIGNAL,
  fanOut: StepKind.FAN_OUT,
  childRun: StepKind.CHILD_RUN,
};
