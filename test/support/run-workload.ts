import { fromJson } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Graph, GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { type Cadre, CadreError, type JsonObject, type JsonValue, reasonName } from "@cadre/sdk";
import type { RunHistory } from "./checker.ts";
import { insist } from "./insist.ts";
import type { Workload } from "./workload.ts";

export interface RunWorkloadOptions {
  /** How long each tool works, in milliseconds. */
  readonly stepMs: number;
  /** Default `twelve`. */
  readonly shape?: keyof typeof shapes;
}

/** Sequences of steps; a number is a fan-out of so many. */
const shapes = {
  /** Twelve calls, with two fan-outs of three. */
  twelve: [1, 1, 3, 1, 1, 3, 1, 1],
  one: [1],
} as const satisfies Readonly<Record<string, readonly number[]>>;

/** More than an entry holds, in bytes. */
const largeBytes = 300 * 1024;

/** Runs of a graph whose steps each call the ledger's tool. */
export function runWorkload({ stepMs, shape = "twelve" }: RunWorkloadOptions): Workload {
  const widths = shapes[shape];
  const steps = widths.flatMap((width, index) => namesOf(index, width));
  return workloadOf(toGraph(widths, stepMs), steps, (run) => ({ run }));
}

/** Runs that wait for a time and for a child, and carry a value that is kept outside of the journal. */
export function waitingWorkload({ stepMs }: Pick<RunWorkloadOptions, "stepMs">): Workload {
  const record = (step: string): JsonObject => ({ run: { $ref: "input.run" }, step, ms: stepMs });
  const child = {
    name: "recorded-child",
    steps: [{ name: "only", tool: { tool: "record", arguments: record("child") } }],
  };
  const steps: readonly JsonObject[] = [
    { name: "pause", timer: { duration: "0.2s" } },
    { name: "child", after: [{ step: "pause" }], childRun: { graph: child, input: { run: { $ref: "input.run" } } } },
    {
      name: "last",
      after: [{ step: "child" }],
      tool: { tool: "record", arguments: { ...record("last"), note: { $ref: "input.note" } } },
    },
  ];
  const graph = fromJson(GraphSchema, { name: "waiting", steps: [...steps] });
  return workloadOf(graph, ["child", "last"], (run) => ({ run, note: "n".repeat(largeBytes) }));
}

/** Runs that wait for a time between their two calls. */
export function timedWorkload({
  stepMs,
  waitMs,
}: Pick<RunWorkloadOptions, "stepMs"> & { readonly waitMs: number }): Workload {
  const call = (step: string): JsonObject => ({
    tool: "record",
    arguments: { run: { $ref: "input.run" }, step, ms: stepMs },
  });
  const steps: readonly JsonObject[] = [
    { name: "before", timeout: "120s", tool: call("before") },
    { name: "pause", after: [{ step: "before" }], timer: { duration: `${waitMs / 1_000}s` } },
    { name: "after", timeout: "120s", after: [{ step: "pause" }], tool: call("after") },
  ];
  const graph = fromJson(GraphSchema, { name: "timed", steps: [...steps] });
  return workloadOf(graph, ["before", "after"], (run) => ({ run }));
}

function workloadOf(graph: Graph, steps: readonly string[], inputOf: (run: string) => JsonObject): Workload {
  return {
    steps,
    async start(cadre, run) {
      const { runId } = await cadre.runs.start({ graph, input: inputOf(run), idempotencyKey: `run-of-${run}` });
      return runId;
    },
    async cancel(cadre, id) {
      await cadre.runs.cancel(id);
    },
    history: readHistory,
    async isDamaged(cadre, id) {
      try {
        const { run } = await insist(() => cadre.runs.get(id));
        return run.parked !== undefined && reasonName(run.parked.reason) === "DATA_LOSS";
      } catch (error) {
        if (error instanceof CadreError && error.reason === "DATA_LOSS") return true;
        throw error;
      }
    },
  };
}

function namesOf(index: number, width: number): readonly string[] {
  const name = `step_${index + 1}`;
  return width === 1 ? [name] : Array.from({ length: width }, (_, item) => `${name}-${item}`);
}

/**
 * A chain of steps, in the contract's JSON. Before each single call stands one
 * that changes nothing, and that tells it what to record: such calls begin
 * before what they follow is stored, and are repeated after a crash.
 */
function toGraph(widths: readonly number[], stepMs: number): Graph {
  const steps = widths.flatMap((width, index): JsonObject[] => {
    const call = (step: JsonValue): JsonObject => ({
      tool: "record",
      arguments: { run: { $ref: "input.run" }, step, ms: stepMs },
    });
    const name = `step_${index + 1}`;
    const after = index === 0 ? [] : [{ step: `step_${index}` }];
    const common = { name, timeout: "120s", after };
    if (width > 1) {
      return [{ ...common, fanOut: { over: [...namesOf(index, width)], tool: call({ $ref: "item" }) } }];
    }
    const told = `told_${index + 1}`;
    return [
      { name: told, after, tool: { tool: "echo", arguments: { step: name } } },
      { ...common, after: [...after, { step: told }], tool: call({ $ref: `steps.${told}.output.step` }) },
    ];
  });
  return fromJson(GraphSchema, { name: "recorded", steps });
}

const readHistory: Workload["history"] = async (cadre, id, signal) => {
  const stepEndedAtMs = new Map<string, number>();
  let state: RunHistory["state"] = "open";
  let reason: string | undefined;
  let endedAtMs: number | undefined;
  let ends = 0;
  try {
    for await (const { body, at } of cadre.runs.events(id, { signal, reconnect: { maxDelayMs: 500 } })) {
      const atMs = at === undefined ? 0 : timestampMs(at);
      if (body.case === "stepEnded" && body.value.step !== undefined) {
        const { name, index } = body.value.step;
        const { outcome } = body.value;
        if (outcome.case === "output") stepEndedAtMs.set(index === undefined ? name : `${name}-${index}`, atMs);
        if (outcome.case === "error") reason ??= `${name}: ${outcome.value.message}`;
      }
      if (body.case === "runParked") reason = `parked: ${body.value.parked?.message}`;
      if (body.case !== "runEnded") continue;
      const { outcome } = body.value;
      state = outcome.case === "output" ? "succeeded" : outcome.case === "cancelled" ? "cancelled" : "failed";
      if (outcome.case === "error") reason = outcome.value.message;
      endedAtMs = atMs;
      ends += 1;
    }
  } catch (error) {
    if (!(error instanceof CadreError)) throw error;
    if (error.reason === "RUN_NOT_FOUND") return undefined;
    if (!signal.aborted) throw error;
  }
  const seqs = await insist(() => exportedSeqs(cadre, id));
  return { id, state, ...(reason === undefined ? {} : { reason }), seqs, ends, endedAtMs, stepEndedAtMs };
};

/** The numbers of all entries: events leave out those that only the journal needs. */
async function exportedSeqs(cadre: Cadre, id: string): Promise<readonly number[]> {
  const seqs: number[] = [];
  for await (const { seq } of cadre.runs.export(id)) seqs.push(Number(seq));
  return seqs;
}
