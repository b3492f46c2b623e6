/**
 * A run as callers see it: from its row alone in lists, from its row and its
 * journal where one is asked for. Pure but for payloads that are kept outside
 * of the journal, which the caller loads.
 */
import { create, fromBinary } from "@bufbuild/protobuf";
import { durationFromMs, type Timestamp, timestampFromMs, type Value } from "@bufbuild/protobuf/wkt";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import type { Entry, GraphStep, Payload, RunAccepted } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import {
  type RunError,
  RunErrorSchema,
  type RunParked,
  RunParkedSchema,
  type StepReceipt,
  type StepWait,
  StepWaitSchema,
} from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import {
  type Run,
  RunBudgetSchema,
  RunPinsSchema,
  RunSchema,
  type RunState,
  type RunStep,
  RunStepSchema,
  StepState,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { TurnSchema } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { reasonNumber } from "../../runtime/errors/failure.ts";
import { fromUuid } from "../../runtime/ids/id.ts";
import type { EndedRun } from "../app/graph/run-ends.ts";
import { stepId } from "../domain/step-id.ts";
import { runState } from "../store/append-store.ts";
import { toValue } from "../store/proto-values.ts";
import type { RunReceipt } from "../store/receipt-store.ts";
import type { RunRow } from "../store/run-read-store.ts";
import { acceptedOf, answerOutput, definitionDigest, modelOutput, outputForm, toRunError } from "./run-events.ts";

/** How much of a run's input and outputs an answer holds, in bytes, with room for the graph below a message's limit. */
const maxShownBytes = 2 * 1024 * 1024;
/** How many elements of fan-outs an answer holds. */
const maxShownItems = 10_000;

/** A run as lists show it: what its row says. */
export function toListedRun(row: RunRow): Run {
  return create(RunSchema, {
    runId: fromUuid("run", row.runId),
    name: row.name,
    state: row.state as number as RunState,
    ...shownFailure(row),
    labels: { ...row.labels },
    lastSeq: BigInt(row.head),
    ledgerHead: Buffer.from(row.chain).toString("hex"),
    sessionId: row.sessionId === undefined ? "" : fromUuid("ses", row.sessionId),
    parentRunId: row.parentRunId === undefined ? "" : fromUuid("run", row.parentRunId),
    scheduleId: row.scheduleId === undefined ? "" : fromUuid("sch", row.scheduleId),
    createdAt: timestampFromMs(row.createdAtMs),
    ...(row.endedAtMs === undefined ? {} : { endedAt: timestampFromMs(row.endedAtMs) }),
  });
}

/** Whether an end can be shown as it is: its output is at hand and not large. */
export function isShowable({ end }: EndedRun): boolean {
  return end.state !== "succeeded" || (end.output.value !== undefined && end.output.blob === undefined);
}

/** A run that was started and has ended since, without what its journal tells: its steps, input and pins. */
export function toEndedRun(started: Run, { end, head, endedAtMs }: EndedRun): Run {
  const run: Run = { ...started, state: runState[end.state] as number as RunState };
  run.lastSeq = BigInt(head);
  run.endedAt = timestampFromMs(endedAtMs);
  if (end.state === "succeeded") run.output = toValue(end.output.value ?? null);
  if (end.state === "failed") {
    const { reason, message } = end.error;
    run.error = create(RunErrorSchema, { reason: reasonNumber(reason), message, step: end.step });
  }
  return run;
}

/** The same of a run that was read: what `toEndedRun` has not is left out. */
export function toBriefRun(run: Run): Run {
  const { input: _input, graph: _graph, pins: _pins, budget: _budget, ...rest } = run;
  return create(RunSchema, { ...rest, steps: [], ledgerHead: "" });
}

/** A run whose journal cannot be read: what its row says, and why there is no more. */
export function toDamagedRun(row: RunRow, message: string): Run {
  const run = toListedRun(row);
  run.parked ??= create(RunParkedSchema, { reason: Reason.DATA_LOSS, message });
  return run;
}

/** A run of which only its receipt is left. */
export function toPrunedRun(receipt: RunReceipt): Run {
  return create(RunSchema, {
    runId: fromUuid("run", receipt.runId),
    name: receipt.name,
    state: receipt.state as number as RunState,
    lastSeq: BigInt(receipt.entries),
    ledgerHead: Buffer.from(receipt.ledgerHead).toString("hex"),
    pins: receipt.pins,
    createdAt: timestampFromMs(receipt.createdAtMs),
    endedAt: timestampFromMs(receipt.endedAtMs),
    pruned: true,
  });
}

/** Why a run is parked, as its row says it. */
export function parkedOf(row: RunRow): RunParked | undefined {
  if (row.state !== runState.parked) return undefined;
  const parked = row.sessionId === undefined ? fromBinary(RunSchema, row.view).parked : undefined;
  return parked ?? create(RunParkedSchema, { reason: Reason.DATA_LOSS, message: "the run's journal is damaged" });
}

function shownFailure(row: RunRow): { readonly error?: RunError; readonly parked?: RunParked } {
  const parked = parkedOf(row);
  if (parked !== undefined) return { parked };
  if (row.state !== runState.failed) return {};
  if (row.sessionId === undefined) {
    const { error } = fromBinary(RunSchema, row.view);
    return error === undefined ? {} : { error };
  }
  const { error } = fromBinary(TurnSchema, row.view);
  return error === undefined ? {} : { error: create(RunErrorSchema, { reason: error.reason, message: error.message }) };
}

/** A value that is shown if there is room for it. */
type Shown =
  | { readonly kind: "value"; readonly value: Value; readonly bytes: number }
  | { readonly kind: "payload"; readonly payload: Payload; readonly bytes: number };

/** A step while its entries are gathered. */
interface StepDraft {
  readonly name: string;
  readonly stepId: string;
  state: StepState;
  attempt: number;
  output: Shown | undefined;
  error: RunError | undefined;
  wait: StepWait | undefined;
  receipt: StepReceipt | undefined;
  endedSeq: number;
  startedAt: Timestamp | undefined;
  endedAt: Timestamp | undefined;
  readonly items: Map<number, StepDraft>;
  compensation: StepDraft | undefined;
}

/** Gathers a run from its entries, each given once, in order. */
export class RunView {
  readonly #row: RunRow;
  readonly #runId: string;
  readonly #steps = new Map<string, StepDraft>();
  /** Calls of a turn, and of agents' steps, by their ids. */
  readonly #calls = new Map<string, StepDraft | "of an agent's step">();
  readonly #toolNames = new Map<string, readonly string[]>();
  #first: Entry | undefined;
  #started: Extract<Entry["body"], { case: "runStarted" }>["value"] | undefined;
  #output: Shown | undefined;

  constructor(row: RunRow) {
    this.#row = row;
    this.#runId = fromUuid("run", row.runId);
  }

  /** Takes the next entry. `bytes` is how large it is as stored. */
  apply(seq: number, entry: Entry, bytes: number): void {
    const { body, at } = entry;
    this.#first ??= entry;
    switch (body.case) {
      case "runStarted":
        this.#started = body.value;
        break;
      case "stepStarted": {
        const { step, attempt } = body.value;
        const draft = step.case === "graph" ? this.#draft(step.value, body.value.stepId) : this.#beginCall(body.value);
        if (draft === undefined) break;
        Object.assign(draft, { state: StepState.RUNNING, attempt, wait: undefined });
        draft.startedAt ??= at;
        break;
      }
      case "stepWaiting": {
        const draft = this.#draft(body.value.step, body.value.stepId);
        Object.assign(draft, { state: StepState.WAITING, wait: body.value.wait });
        draft.startedAt ??= at;
        break;
      }
      case "stepSucceeded": {
        const { result, attempt } = body.value;
        if (result.case === "graph") {
          const draft = this.#draft(result.value.step, body.value.stepId);
          end(draft, StepState.SUCCEEDED, seq, at, attempt);
          draft.output = result.value.output === undefined ? undefined : payloadShown(result.value.output, bytes);
          break;
        }
        const draft = this.#calls.get(body.value.stepId);
        if (draft === undefined || draft === "of an agent's step") break;
        if (result.case === "model") {
          this.#toolNames.set(
            draft.stepId,
            result.value.toolCalls.map(({ tool }) => tool),
          );
        }
        this.#endCall(draft, seq, at, attempt, result, bytes);
        break;
      }
      case "stepFailed": {
        const { step, stepId: id, attempt, error, retryable, retryAt, receipt } = body.value;
        const call = this.#calls.get(id);
        const draft = step === undefined ? call : this.#draft(step, id);
        if (draft === undefined || draft === "of an agent's step") break;
        draft.error = toRunError(error, step?.name ?? "");
        draft.attempt = attempt;
        if (receipt !== 0) draft.receipt = receipt;
        if (!retryable) end(draft, StepState.FAILED, seq, at, attempt);
        else if (retryAt !== undefined) {
          draft.state = StepState.WAITING;
          draft.wait = create(StepWaitSchema, { reason: { case: "retryAt", value: retryAt } });
        }
        break;
      }
      case "stepSkipped":
        end(this.#draft(body.value.step, ""), StepState.SKIPPED, seq, at, 0);
        break;
      case "stepCancelled": {
        const { step, stepId: id, receipt } = body.value;
        const draft = step === undefined ? this.#calls.get(id) : this.#draft(step, id);
        if (draft === undefined || draft === "of an agent's step") break;
        end(draft, StepState.CANCELLED, seq, at, draft.attempt);
        draft.receipt = receipt;
        break;
      }
      case "runEnded":
        if (body.value.state === TurnState.SUCCEEDED) {
          const output = answerOutput(outputForm(acceptedOf(this.#first)), body.value.answer);
          this.#output = { kind: "value", value: toValue(output), bytes };
        }
        this.#cutOff(seq, at);
        break;
      case "graphEnded":
        if (body.value.outcome.case === "output") this.#output = payloadShown(body.value.outcome.value, bytes);
        this.#cutOff(seq, at);
        break;
      default:
        break;
    }
  }

  /**
   * The run as far as its entries were given.
   *
   * @param load reads what is kept outside of the journal
   * @throws AppError DATA_LOSS if it does not begin as a run does, or what `load` throws
   */
  async toRun(load: (payload: Payload) => Promise<Value>): Promise<Run> {
    const accepted = acceptedOf(this.#first);
    const { input } = accepted;
    let left = maxShownBytes;
    const show = async (shown: Shown | undefined): Promise<Value | undefined> => {
      if (shown === undefined || shown.bytes > left) return undefined;
      left -= shown.bytes;
      return shown.kind === "value" ? shown.value : await load(shown.payload);
    };
    const run = toListedRun(this.#row);
    run.input = await show(inputShown(accepted));
    run.output = await show(this.#output);
    run.pins = this.#pins(accepted);
    run.forkedFromRunId = accepted.forkedFromRunId;
    run.forkedFromCheckpoint = accepted.forkedFromCheckpoint;
    if (input.case === "graph") {
      run.graph = input.value.graph;
      run.budget = create(RunBudgetSchema, {
        maxSteps: accepted.maxSteps,
        maxDuration: durationFromMs(Number(accepted.maxDurationMs)),
      });
    }
    let items = maxShownItems;
    const toStep = async (draft: StepDraft): Promise<RunStep> => {
      const { name, stepId: id, state, attempt, error, wait, receipt, endedSeq, startedAt, endedAt } = draft;
      const output = await show(draft.output);
      const shownItems: RunStep[] = [];
      for (const [, item] of [...draft.items].sort(([a], [b]) => a - b)) {
        if (items === 0) break;
        items -= 1;
        shownItems.push(await toStep(item));
      }
      return create(RunStepSchema, {
        name,
        stepId: id,
        state,
        attempt,
        endedSeq: BigInt(endedSeq),
        items: shownItems,
        ...(receipt === undefined ? {} : { receipt }),
        ...(output === undefined ? {} : { output }),
        ...(error === undefined ? {} : { error }),
        ...(wait === undefined ? {} : { wait }),
        ...(startedAt === undefined ? {} : { startedAt }),
        ...(endedAt === undefined ? {} : { endedAt }),
        ...(draft.compensation === undefined ? {} : { compensation: await toStep(draft.compensation) }),
      });
    };
    for (const draft of this.#ordered(accepted)) run.steps.push(await toStep(draft));
    return run;
  }

  /** The steps of a graph in its order, the calls of a turn in theirs. */
  #ordered({ input }: RunAccepted): readonly StepDraft[] {
    if (input.case !== "graph") {
      return [...this.#calls.values()].filter((call) => call !== "of an agent's step");
    }
    return (input.value.graph?.steps ?? []).flatMap(({ name }) => this.#steps.get(name) ?? []);
  }

  #pins(accepted: RunAccepted) {
    const { agent } = accepted;
    const { tools = [], models = {} } = this.#started ?? {};
    const ownModel = accepted.input.case === "turn" ? (agent?.definition?.model ?? "") : "";
    return create(RunPinsSchema, {
      definitionDigest: definitionDigest(accepted),
      agent: agent === undefined ? "" : `${agent.definition?.name ?? ""}@${agent.revision}`,
      tools: tools.map(({ definition, digest }) => ({ tool: definition?.name ?? "", digest })),
      models: [...new Set([...Object.keys(models), ...(ownModel === "" ? [] : [ownModel])])].sort(),
    });
  }

  /** The step of a graph; made when it is first told of. */
  #draft(place: GraphStep | undefined, id: string): StepDraft {
    const { name = "", index, compensation = false } = place ?? {};
    let step = this.#steps.get(name);
    const isPart = index !== undefined || compensation;
    if (step === undefined) {
      step = newDraft(name, !isPart && id !== "" ? id : stepId(this.#runId, `step:${name}`));
      this.#steps.set(name, step);
    }
    if (compensation) {
      step.compensation ??= newDraft(name, id);
      return step.compensation;
    }
    if (index === undefined) return step;
    let item = step.items.get(index);
    if (item === undefined) {
      item = newDraft(name, id);
      step.items.set(index, item);
    }
    return item;
  }

  #beginCall(started: Extract<Entry["body"], { case: "stepStarted" }>["value"]): StepDraft | undefined {
    const { stepId: id, step } = started;
    if (step.case !== "model" && step.case !== "tool") return undefined;
    if (step.value.within !== undefined) {
      this.#calls.set(id, "of an agent's step");
      const agent = this.#draft(step.value.within, "");
      if (agent.startedAt === undefined) agent.attempt = 1;
      return agent.endedSeq === 0 && agent.startedAt === undefined ? agent : undefined;
    }
    const known = this.#calls.get(id);
    if (known !== undefined) return known === "of an agent's step" ? undefined : known;
    const draft = newDraft(step.case === "model" ? "model" : this.#toolName(step.value.round, step.value.index), id);
    this.#calls.set(id, draft);
    return draft;
  }

  #toolName(round: number, index: number): string {
    return this.#toolNames.get(stepId(this.#runId, `model:${round}`))?.[index] ?? "tool";
  }

  #endCall(
    draft: StepDraft,
    seq: number,
    at: Timestamp | undefined,
    attempt: number,
    result:
      | Exclude<
          Extract<Entry["body"], { case: "stepSucceeded" }>["value"]["result"],
          { case: "graph" } | { case: undefined }
        >
      | { case: undefined; value?: undefined },
    bytes: number,
  ): void {
    end(draft, StepState.SUCCEEDED, seq, at, attempt);
    if (result.case === "model") draft.output = { kind: "value", value: toValue(modelOutput(result.value)), bytes };
    if (result.case !== "tool") return;
    const { outcome } = result.value;
    if (outcome.case === "value") draft.output = { kind: "value", value: outcome.value, bytes };
    if (outcome.case === "error") {
      draft.state = StepState.FAILED;
      draft.error = toRunError(outcome.value, "");
    }
  }

  /** What was under way when the run ended was cut off with it. */
  #cutOff(seq: number, at: Timestamp | undefined): void {
    const cutOff = (draft: StepDraft): void => {
      if (draft.endedSeq === 0) end(draft, StepState.CANCELLED, seq, at, draft.attempt);
      for (const item of draft.items.values()) cutOff(item);
      if (draft.compensation !== undefined) cutOff(draft.compensation);
    };
    for (const draft of this.#steps.values()) cutOff(draft);
    for (const call of this.#calls.values()) if (call !== "of an agent's step") cutOff(call);
  }
}

function newDraft(name: string, id: string): StepDraft {
  return {
    name,
    stepId: id,
    state: StepState.RUNNING,
    attempt: 0,
    output: undefined,
    error: undefined,
    wait: undefined,
    receipt: undefined,
    endedSeq: 0,
    startedAt: undefined,
    endedAt: undefined,
    items: new Map(),
    compensation: undefined,
  };
}

function end(draft: StepDraft, state: StepState, seq: number, at: Timestamp | undefined, attempt: number): void {
  draft.state = state;
  draft.attempt = attempt;
  draft.endedSeq = seq;
  draft.endedAt = at;
  draft.startedAt ??= at;
  draft.wait = undefined;
  if (state === StepState.SUCCEEDED) draft.error = undefined;
}

function payloadShown(payload: Payload | undefined, bytes: number): Shown {
  if (payload === undefined) return { kind: "value", value: toValue(null), bytes: 0 };
  const { place } = payload;
  return { kind: "payload", payload, bytes: place.case === "blob" ? Number(place.value.size) : bytes };
}

function inputShown({ input }: RunAccepted): Shown | undefined {
  switch (input.case) {
    case "turn":
      return { kind: "value", value: toValue({ text: input.value.text }), bytes: Buffer.byteLength(input.value.text) };
    case "graph":
      // The entry holds the graph, too; what is kept in it is small.
      return payloadShown(input.value.input, input.value.input?.place.case === "blob" ? 0 : 256 * 1024);
    case undefined:
      return undefined;
  }
}
