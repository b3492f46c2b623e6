import { type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Graph, GraphSchema, type Step } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { type Run, type RunStep, StepState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { type RunStateName, runStateName, type StepStateName, stepStateName } from "./run-state.ts";

/** A run as a graph: its steps with their states, and what each waits for. Plain JSON. */
export interface RunPicture {
  readonly run_id: string;
  readonly name: string;
  readonly state: RunStateName;
  readonly nodes: readonly RunPictureNode[];
  readonly edges: readonly RunPictureEdge[];
}

/** A step. */
export interface RunPictureNode {
  readonly name: string;
  /** What it does: `tool`, `model`, `agent`, `approval`, `timer`, `signal`, `fan_out` or `child_run`. */
  readonly kind: string;
  readonly state: StepStateName;
  /** The attempt that was made last; 0 if none was. */
  readonly attempt: number;
  /** Why it, or its last attempt, failed; empty if it did not. */
  readonly error: string;
  /** The elements of a fan-out that were begun, by their states. */
  readonly items?: Readonly<Partial<Record<StepStateName, number>>>;
  /** What became of its compensation, if that was begun. */
  readonly compensation?: StepStateName;
}

/** That a step waits for another. */
export interface RunPictureEdge {
  readonly from: string;
  readonly to: string;
  /** The condition; empty if there is none. */
  readonly when: string;
}

/**
 * Makes the picture of a run that `cadre.runs.get` gave. A turn has no graph:
 * its calls follow one another.
 */
export function pictureOf(run: Run): RunPicture {
  const { runId, name, graph, steps } = run;
  const head = { run_id: runId, name, state: runStateName(run.state) };
  if (graph === undefined) {
    const nodes = steps.map((step, index) =>
      toNode(`${index + 1} ${step.name}`, step.name === "model" ? "model" : "tool", step),
    );
    return {
      ...head,
      nodes,
      edges: nodes.slice(1).map(({ name: to }, index) => ({ from: nodes[index]?.name ?? "", to, when: "" })),
    };
  }
  const begun = new Map(steps.map((step) => [step.name, step]));
  const nodes = graph.steps.map((step) => toNode(step.name, kindOf(step), begun.get(step.name)));
  return { ...head, nodes, edges: edgesOf(graph) };
}

/**
 * The picture as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html),
 * which GitHub and many editors draw.
 */
export function toMermaid(picture: RunPicture): string {
  // Names of steps could be words of Mermaid, such as `end`; numbers cannot.
  const ids = new Map(picture.nodes.map(({ name }, index) => [name, `s${index}`]));
  const lines = picture.nodes.map((node) => `  ${ids.get(node.name)}["${escaped(labelOf(node))}"]:::${node.state}`);
  for (const { from, to, when } of picture.edges) {
    const label = when === "" ? "" : `|"${escaped(when)}"|`;
    lines.push(`  ${ids.get(from)} -->${label} ${ids.get(to)}`);
  }
  return ["flowchart TD", ...lines, ...styles].join("\n");
}

const styles = [
  "  classDef pending fill:#f6f8fa,stroke:#8c959f,color:#57606a",
  "  classDef running fill:#ddf4ff,stroke:#0969da,color:#0969da",
  "  classDef waiting fill:#fff8c5,stroke:#9a6700,color:#7d4e00",
  "  classDef succeeded fill:#dafbe1,stroke:#1a7f37,color:#116329",
  "  classDef failed fill:#ffebe9,stroke:#cf222e,color:#a40e26",
  "  classDef skipped fill:#ffffff,stroke:#8c959f,color:#8c959f,stroke-dasharray:4",
  "  classDef cancelled fill:#eaeef2,stroke:#57606a,color:#57606a",
];

function labelOf({ name, kind, state, attempt, items, compensation }: RunPictureNode): string {
  const parts = [`${name} · ${kind}`, attempt > 1 ? `${state}, attempt ${attempt}` : state];
  if (items !== undefined) {
    parts.push(
      Object.entries(items)
        .map(([itemState, count]) => `${count} ${itemState}`)
        .join(", "),
    );
  }
  if (compensation !== undefined) parts.push(`undone: ${compensation}`);
  return parts.join("\n");
}

function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll('"', "#quot;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll("\n", "<br>");
}

function toNode(name: string, kind: string, step: RunStep | undefined): RunPictureNode {
  if (step === undefined) return { name, kind, state: "pending", attempt: 0, error: "" };
  const { items, compensation } = step;
  return {
    name,
    kind,
    state: stepStateName(step.state),
    attempt: step.attempt,
    error: step.error?.message ?? "",
    ...(items.length === 0 ? {} : { items: countStates(items) }),
    ...(compensation === undefined ? {} : { compensation: stepStateName(compensation.state) }),
  };
}

function countStates(steps: readonly RunStep[]): Partial<Record<StepStateName, number>> {
  const counts: Partial<Record<StepStateName, number>> = {};
  for (const { state } of steps) {
    if (state === StepState.UNSPECIFIED) continue;
    const name = stepStateName(state);
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

function kindOf({ task }: Step): string {
  return (task.case ?? "").replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The edges that are written down, and those that follow from references where a step has none. */
function edgesOf(graph: Graph): RunPictureEdge[] {
  const names = new Set(graph.steps.map(({ name }) => name));
  const { steps } = toJson(GraphSchema, graph, { useProtoFieldName: true }) as {
    readonly steps?: readonly JsonObject[];
  };
  return graph.steps.flatMap((step, index) => {
    const written = step.after.map(({ step: from, when }) => ({ from, to: step.name, when }));
    const said = new Set(written.map(({ from }) => from));
    const referred = new Set<string>();
    // What a compensation refers to has long ended.
    const { after: _after, compensation: _compensation, ...task } = steps?.[index] ?? {};
    collectReferences(task, referred);
    const implied = [...referred].filter((from) => names.has(from) && !said.has(from));
    return [...written, ...implied.map((from) => ({ from, to: step.name, when: "" }))];
  });
}

function collectReferences(value: JsonValue | undefined, found: Set<string>): void {
  if (Array.isArray(value)) for (const item of value) collectReferences(item, found);
  else if (typeof value === "object" && value !== null) {
    const { $ref } = value;
    if (typeof $ref === "string") {
      const [, name] = /^steps\.([a-z][a-z0-9_]*)\b/.exec($ref) ?? [];
      if (name !== undefined) found.add(name);
    }
    for (const [key, field] of Object.entries(value)) {
      // A child's graph has names of its own, and a literal is no template.
      if (key !== "graph" && key !== "$literal") collectReferences(field, found);
    }
  }
}
