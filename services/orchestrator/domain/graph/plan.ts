import { nearestName } from "../../../runtime/config/nearest-name.ts";
import type { Json, JsonObject } from "../json.ts";
import { type Condition, readCondition } from "./condition.ts";
import {
  type ChildRunTask,
  type Graph,
  type ItemTask,
  type SignalTask,
  type Step,
  type Task,
  type ToolTask,
  taskField,
} from "./graph.ts";
import { namesOf } from "./names.ts";
import { orderSteps } from "./order.ts";
import { Problems } from "./problems.ts";
import type { OwnName } from "./scope.ts";
import { type PlacedReference, readTemplate, referencesOf, type Template } from "./template.ts";

/**
 * A graph as the engine walks it: its steps in an order in which each comes
 * after those that it waits for, its templates and conditions compiled.
 * Nothing in it changes, so that runs of the same graph share one.
 */
export interface Plan {
  readonly graph: Graph;
  /** In that order; as far as it allows, in the order in which they were given. */
  readonly nodes: readonly PlanNode[];
  readonly byName: ReadonlyMap<string, PlanNode>;
  /** The steps that no other waits for. */
  readonly finals: readonly PlanNode[];
  /** Template of the run's output; absent: the outputs of `finals`, by name. */
  readonly output: Template | undefined;
  /** The tools that it names, inline children included; sorted. */
  readonly tools: readonly string[];
  /** The agents that it names, to work or for their graphs, inline children included; sorted. */
  readonly agents: readonly string[];
  /** The models that it names, inline children included; sorted. The empty name is the default one. */
  readonly models: readonly string[];
}

/** A step of a plan. */
export interface PlanNode {
  readonly name: string;
  /** Its index in `Plan.nodes`. */
  readonly position: number;
  readonly step: Step;
  readonly task: CompiledTask;
  /** What undoes it. */
  readonly compensation: CompiledToolTask | undefined;
  /** The positions of the steps that must have ended before, ascending. */
  readonly waitsFor: readonly number[];
  /** The positions of the steps that wait for it, ascending. */
  readonly next: readonly number[];
  /** Of which one at least must be taken; without any, the step runs at once. */
  readonly edges: readonly PlanEdge[];
}

/** An edge that leads to a step. */
export interface PlanEdge {
  /** The position of the step that it comes from. */
  readonly from: number;
  /** Absent: always. */
  readonly when: Condition | undefined;
}

/** A task whose templates are compiled. */
export type CompiledTask =
  | CompiledItemTask
  | {
      readonly kind: "approval";
      readonly prompt: Template;
      readonly expiresAfterMs: number | undefined;
      readonly continueOnRefusal: boolean;
    }
  | { readonly kind: "timer"; readonly due: { readonly durationMs: number } | { readonly until: Template } }
  | SignalTask
  | {
      readonly kind: "fan-out";
      readonly over: Template;
      readonly concurrency: number;
      readonly task: CompiledItemTask;
    };

/** What is done for each element of a fan-out, or once. */
export type CompiledItemTask =
  | CompiledToolTask
  | {
      readonly kind: "model";
      readonly model: string;
      readonly instructions: string;
      readonly prompt: Template;
      readonly answerSchema: JsonObject | undefined;
    }
  | {
      readonly kind: "agent";
      readonly agent: string;
      readonly message: Template;
      readonly answerSchema: JsonObject | undefined;
    }
  | {
      readonly kind: "child-run";
      /** A graph in it is compiled when the child starts. */
      readonly definition: ChildRunTask["definition"];
      /** Absent: null. */
      readonly input: Template | undefined;
    };

/** A call of a tool. */
export interface CompiledToolTask {
  readonly kind: "tool";
  readonly tool: string;
  readonly arguments: Template;
}

/**
 * Compiles a graph for the engine. Children in it are compiled when they start.
 *
 * @throws AppError INVALID_GRAPH with all that is wrong with its steps, edges, templates and conditions
 */
export function compileGraph(graph: Graph): Plan {
  const problems = new Problems();
  const plan = readPlan(graph, "", problems);
  problems.throwIfFound();
  return plan;
}

/**
 * Compiles a graph and notes what is wrong with it. With problems the plan is
 * no good for runs, but is whole enough for further checks, unless there are
 * cycles, in which case its order is not one.
 *
 * @param path where the graph stands; empty, or ends with a dot
 */
export function readPlan(graph: Graph, path: string, problems: Problems): Plan {
  return new PlanReader(graph, path, problems).read();
}

/** A step whose dependencies are known by their indexes in the graph. */
interface Draft {
  readonly step: Step;
  readonly task: CompiledTask;
  readonly compensation: CompiledToolTask | undefined;
  readonly edges: readonly PlanEdge[];
  readonly waitsFor: readonly number[];
}

class PlanReader {
  readonly #graph: Graph;
  readonly #path: string;
  readonly #problems: Problems;
  readonly #indexes = new Map<string, number>();
  #suggestions = 10;

  constructor(graph: Graph, path: string, problems: Problems) {
    this.#graph = graph;
    this.#path = path;
    this.#problems = problems;
  }

  read(): Plan {
    this.#readNames();
    const drafts = this.#graph.steps.map((step, index) => this.#readStep(step, index));
    const { sequence, cycles } = orderSteps(drafts.map(({ waitsFor }) => waitsFor));
    for (const cycle of cycles) this.#reportCycle(cycle);
    const output = this.#graph.output === undefined ? undefined : this.#template(this.#graph.output, "output");
    for (const placed of output === undefined ? [] : referencesOf(output)) this.#target(placed, undefined, []);
    const nodes = toNodes(drafts, sequence);
    return {
      graph: this.#graph,
      nodes,
      byName: new Map(nodes.map((node) => [node.name, node])),
      finals: nodes.filter(({ next }) => next.length === 0),
      output,
      ...namesOf(this.#graph),
    };
  }

  #readNames(): void {
    for (const [index, { name }] of this.#graph.steps.entries()) {
      const key = name.toLowerCase();
      const first = this.#indexes.get(key);
      if (first === undefined) this.#indexes.set(key, index);
      else this.#report(`steps[${index}].name`, `${name} is the name of steps[${first}], too`, "unique_name");
    }
  }

  #readStep(step: Step, index: number): Draft {
    const place = `steps[${index}]`;
    const task = this.#task(step.task, `${place}.${taskField[step.task.kind]}`);
    const compensation =
      step.compensation === undefined ? undefined : this.#tool(step.compensation, `${place}.compensation`);
    const waits = new Set<number>();
    const waitFor = (references: Iterable<PlacedReference>, own: readonly OwnName[]) => {
      for (const placed of references) {
        const target = this.#target(placed, index, own);
        if (target !== undefined) waits.add(target);
      }
    };
    for (const { template, own } of templatesOf(task)) waitFor(referencesOf(template), own);
    if (compensation !== undefined) waitFor(referencesOf(compensation.arguments), ["output"]);
    const edges = step.after.flatMap((edge, at) => {
      const edgePlace = `${place}.after[${at}]`;
      const when =
        edge.when === "" ? undefined : readCondition(edge.when, `${this.#path}${edgePlace}.when`, this.#problems);
      waitFor(when?.references ?? [], ["output"]);
      const from = this.#step(edge.step, index, `${this.#path}${edgePlace}.step`);
      return from === undefined ? [] : [{ from, when }];
    });
    const implied = step.after.length > 0 ? [] : [...waits].map((from) => ({ from, when: undefined }));
    for (const { from } of edges) waits.add(from);
    return { step, task, compensation, edges: [...edges, ...implied], waitsFor: [...waits].sort((a, b) => a - b) };
  }

  #task(task: Task, place: string): CompiledTask {
    switch (task.kind) {
      case "approval":
        return { ...task, prompt: this.#template(task.prompt, `${place}.prompt`) };
      case "timer":
        return "until" in task.due
          ? { kind: "timer", due: { until: this.#template(task.due.until, `${place}.until`) } }
          : { kind: "timer", due: task.due };
      case "signal":
        return task;
      case "fan-out":
        return {
          ...task,
          over: this.#template(task.over, `${place}.over`),
          task: this.#itemTask(task.task, `${place}.${taskField[task.task.kind]}`),
        };
      default:
        return this.#itemTask(task, place);
    }
  }

  #itemTask(task: ItemTask, place: string): CompiledItemTask {
    switch (task.kind) {
      case "tool":
        return this.#tool(task, place);
      case "model":
        return { ...task, prompt: this.#template(task.prompt, `${place}.prompt`) };
      case "agent":
        return { ...task, message: this.#template(task.message, `${place}.message`) };
      case "child-run":
        return { ...task, input: task.input === undefined ? undefined : this.#template(task.input, `${place}.input`) };
    }
  }

  #tool(task: ToolTask, place: string): CompiledToolTask {
    return { ...task, arguments: this.#template(task.arguments, `${place}.arguments`) };
  }

  #template(json: Json, place: string): Template {
    return readTemplate(json, this.#path + place, this.#problems);
  }

  /** The index of the step that a reference names, if it names one. */
  #target({ reference, path }: PlacedReference, self: number | undefined, own: readonly OwnName[]): number | undefined {
    switch (reference.root) {
      case "input":
        return undefined;
      case "steps":
        return this.#step(reference.step, self, path);
      default:
        if (!own.includes(reference.root)) {
          this.#problems.add(path, `${reference.root} is known only in ${ownPlace[reference.root]}`, "reference");
        }
        return undefined;
    }
  }

  #step(name: string, self: number | undefined, path: string): number | undefined {
    const index = this.#indexes.get(name);
    if (index === undefined) {
      this.#problems.add(path, `there is no step ${name}${this.#suggestion(name)}`, "reference");
    } else if (index === self) {
      this.#problems.add(path, `${name} is this step itself`, "self_reference");
      return undefined;
    }
    return index;
  }

  /** Looks for the step that was meant, but not often and not among many: it costs much. */
  #suggestion(name: string): string {
    if (this.#suggestions === 0 || this.#indexes.size > 100) return "";
    this.#suggestions -= 1;
    const nearest = nearestName(name, this.#indexes.keys());
    return nearest === undefined ? "" : `; did you mean ${nearest}?`;
  }

  #reportCycle(cycle: readonly number[]): void {
    const names = cycle.map((index) => this.#graph.steps[index]?.name ?? "");
    const shown = names.length > 24 ? [...names.slice(0, 22), "…", names.at(-1)] : names;
    this.#report(`steps[${cycle[0]}]`, `steps wait for each other: ${shown.join(" -> ")}`, "cycle");
  }

  #report(place: string, message: string, rule: string): void {
    this.#problems.add(this.#path + place, message, rule);
  }
}

/** Where the values that a part of a graph may name by themselves are known. */
const ownPlace = {
  item: "the body of a fan-out",
  index: "the body of a fan-out",
  output: "a compensation and the condition of an edge",
} as const satisfies Record<OwnName, string>;

/** The templates of a task, and what each may name besides input and steps. */
export function* templatesOf(
  task: CompiledTask,
  own: readonly OwnName[] = [],
): Generator<{ readonly template: Template; readonly own: readonly OwnName[] }> {
  switch (task.kind) {
    case "tool":
      return yield { template: task.arguments, own };
    case "model":
    case "approval":
      return yield { template: task.prompt, own };
    case "agent":
      return yield { template: task.message, own };
    case "timer":
      if ("until" in task.due) yield { template: task.due.until, own };
      return;
    case "signal":
      return;
    case "fan-out":
      yield { template: task.over, own };
      return yield* templatesOf(task.task, ["item", "index"]);
    case "child-run":
      if (task.input !== undefined) yield { template: task.input, own };
  }
}

function toNodes(drafts: readonly Draft[], sequence: readonly number[]): readonly PlanNode[] {
  const positions = new Map(sequence.map((index, position) => [index, position]));
  const toPosition = (index: number): number => positions.get(index) ?? index;
  const next: number[][] = sequence.map(() => []);
  return sequence.flatMap((index, position) => {
    const draft = drafts[index];
    if (draft === undefined) return [];
    const waitsFor = draft.waitsFor.map(toPosition).sort((a, b) => a - b);
    for (const before of waitsFor) next[before]?.push(position);
    return {
      name: draft.step.name,
      position,
      step: draft.step,
      task: draft.task,
      compensation: draft.compensation,
      waitsFor,
      next: next[position] ?? [],
      edges: draft.edges.map(({ from, when }) => ({ from: toPosition(from), when })),
    };
  });
}
