import { Fit, inWords } from "./fit.ts";
import { type Graph, graphLimits, taskField } from "./graph.ts";
import type { CompiledItemTask, CompiledTask, CompiledToolTask, Plan, PlanNode } from "./plan.ts";
import type { Problems } from "./problems.ts";
import type { Reference } from "./reference.ts";
import { anyType, nullType, SchemaReader, type SchemaType, toUnion, typeOfSchema } from "./schema-type.ts";
import type { OwnName } from "./scope.ts";
import type { GraphSurroundings } from "./surroundings.ts";
import type { PlacedReference, Template } from "./template.ts";

/** The types of `item`, `index` and `output`, where they are known. */
type OwnTypes = Partial<Readonly<Record<OwnName, SchemaType>>>;

const booleanType = typeOfSchema({ type: "boolean" });
const integerType = typeOfSchema({ type: "integer" });
const textType = typeOfSchema({ type: "string" });
const arrayType = typeOfSchema({ type: "array" });

const textAnswer = object({ text: textType });
const timerOutput = object({ at: textType });
const rfc3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;

/** Follows the types of values through a graph and its inline children. */
export class GraphTypes {
  readonly #plans: ReadonlyMap<Graph, Plan>;
  readonly #surroundings: GraphSurroundings;
  readonly #problems: Problems;
  readonly #reader = new SchemaReader();
  readonly #fit: Fit;
  /** What the runs of graphs give, as far as they were looked at. */
  readonly #outputs = new Map<Graph, SchemaType>();

  constructor(plans: ReadonlyMap<Graph, Plan>, surroundings: GraphSurroundings, problems: Problems) {
    this.#plans = plans;
    this.#surroundings = surroundings;
    this.#problems = problems;
    this.#fit = new Fit(this.#reader, problems);
  }

  /** Notes what cannot fit in a graph whose inline children were looked at before. */
  check(graph: Graph, path: string): void {
    const plan = this.#plans.get(graph);
    // A cycle has no beginning from which types could be followed.
    if (plan === undefined || plan.nodes.some(({ position, waitsFor }) => waitsFor.some((at) => at >= position)))
      return;
    const indexes = new Map(graph.steps.map((step, index) => [step, index]));
    const scope = new TypeScope(plan, this.#reader, this.#problems);
    for (const node of plan.nodes) {
      const place = `${path}steps[${indexes.get(node.step)}]`;
      this.#checkEdges(node, scope);
      const output = this.#checkTask(node.task, `${place}.${taskField[node.task.kind]}`, scope, {});
      if (node.compensation !== undefined) {
        this.#checkTool(node.compensation, `${place}.compensation`, scope, { output });
      }
      scope.add(node, output);
    }
    this.#outputs.set(graph, this.#checkOutput(plan, path, scope));
  }

  #checkEdges(node: PlanNode, scope: TypeScope): void {
    for (const { from, when } of node.edges) {
      if (when === undefined) continue;
      const own = { output: scope.given(from) };
      for (const placed of when.references) scope.typeOf(placed, own);
      for (const placed of when.bools) {
        const kinds = this.#reader.kindsOf(scope.typeOf(placed, own));
        if (kinds.size > 0 && !kinds.has("boolean")) {
          this.#problems.add(
            placed.path,
            `${placed.reference.source} is ${inWords(kinds)}, and a bool must stand there`,
            "type",
          );
        }
      }
    }
  }

  #checkOutput(plan: Plan, path: string, scope: TypeScope): SchemaType {
    const { output, finals } = plan;
    if (output === undefined) {
      return { kind: "object", members: new Map(finals.map(({ name, position }) => [name, scope.seen(position)])) };
    }
    this.#fit.check(output, anyType, `${path}output`, (placed) => scope.typeOf(placed, {}));
    return typeOfTemplate(output, (placed) => scope.typeOf(placed, {}));
  }

  /** Looks at a task and returns the type of its output. */
  #checkTask(task: CompiledTask, place: string, scope: TypeScope, own: OwnTypes): SchemaType {
    const check = (template: Template, wanted: SchemaType, field: string) =>
      this.#fit.check(template, wanted, `${place}.${field}`, (placed) => scope.typeOf(placed, own));
    switch (task.kind) {
      case "tool":
        return this.#checkTool(task, place, scope, own);
      case "model":
        check(task.prompt, anyType, "prompt");
        return task.answerSchema === undefined ? textAnswer : typeOfSchema(task.answerSchema);
      case "agent":
        check(task.message, anyType, "message");
        return task.answerSchema === undefined ? textAnswer : typeOfSchema(task.answerSchema);
      case "approval":
        check(task.prompt, anyType, "prompt");
        return object({
          approved: task.continueOnRefusal ? booleanType : { kind: "constant", value: true },
          by: textType,
          reason: textType,
        });
      case "timer":
        if ("until" in task.due) {
          check(task.due.until, textType, "until");
          this.#checkTime(task.due.until, `${place}.until`);
        }
        return timerOutput;
      case "signal":
        return anyType;
      case "fan-out": {
        check(task.over, arrayType, "over");
        const over = typeOfTemplate(task.over, (placed) => scope.typeOf(placed, own));
        this.#checkLength(task.over, `${place}.over`);
        const inner = { item: this.#reader.element(over), index: integerType };
        return {
          kind: "list",
          item: this.#checkTask(task.task, `${place}.${taskField[task.task.kind]}`, scope, inner),
        };
      }
      case "child-run":
        return this.#checkChild(task, check);
    }
  }

  #checkTool(task: CompiledToolTask, place: string, scope: TypeScope, own: OwnTypes): SchemaType {
    const tool = this.#surroundings.tool(task.tool);
    if (tool === undefined) this.#problems.add(`${place}.tool`, `there is no tool ${task.tool}`, "unknown_tool");
    this.#fit.check(task.arguments, typeOfSchema(tool?.inputSchema), `${place}.arguments`, (placed) =>
      scope.typeOf(placed, own),
    );
    return typeOfSchema(tool?.outputSchema);
  }

  #checkChild(
    { definition, input = { kind: "constant", value: null } }: CompiledItemTask & { kind: "child-run" },
    check: (template: Template, wanted: SchemaType, field: string) => void,
  ): SchemaType {
    if ("agent" in definition) {
      check(input, anyType, "input");
      return anyType;
    }
    check(input, typeOfSchema(definition.graph.inputSchema), "input");
    return this.#outputs.get(definition.graph) ?? anyType;
  }

  #checkTime(until: Template, path: string): void {
    if (until.kind !== "constant" || typeof until.value !== "string") return;
    if (rfc3339.test(until.value) && !Number.isNaN(Date.parse(until.value))) return;
    this.#problems.add(path, "must be a time such as 2026-01-31T09:00:00Z", "type");
  }

  #checkLength(over: Template, path: string): void {
    const items = over.kind === "array" ? over.items : over.kind === "constant" ? over.value : undefined;
    if (!Array.isArray(items) || items.length <= graphLimits.fanOut) return;
    this.#problems.add(path, `has more than ${graphLimits.fanOut} elements`, "fan_out");
  }
}

/** The types that references of one graph have. */
class TypeScope {
  readonly #plan: Plan;
  readonly #reader: SchemaReader;
  readonly #problems: Problems;
  readonly #input: SchemaType;
  /** By position: what a step gives if it runs, and what others see of it, which is null if it was skipped. */
  readonly #given: SchemaType[] = [];
  readonly #seen: SchemaType[] = [];
  readonly #mayBeSkipped: boolean[] = [];

  constructor(plan: Plan, reader: SchemaReader, problems: Problems) {
    this.#plan = plan;
    this.#reader = reader;
    this.#problems = problems;
    this.#input = typeOfSchema(plan.graph.inputSchema);
  }

  add({ position, edges }: PlanNode, output: SchemaType): void {
    const mayBeSkipped =
      edges.length > 0 && edges.every(({ from, when }) => when !== undefined || this.#mayBeSkipped[from] === true);
    this.#mayBeSkipped[position] = mayBeSkipped;
    this.#given[position] = output;
    this.#seen[position] = mayBeSkipped ? (toUnion([output, nullType]) ?? anyType) : output;
  }

  given(position: number): SchemaType {
    return this.#given[position] ?? anyType;
  }

  seen(position: number): SchemaType {
    return this.#seen[position] ?? anyType;
  }

  /** The type of what a reference names; notes it if there can be no such thing. */
  typeOf({ reference, path }: PlacedReference, own: OwnTypes): SchemaType {
    if (this.#problems.has(path)) return anyType;
    let type = this.#rootType(reference, own);
    for (const [index, key] of reference.path.entries()) {
      const inner = this.#reader.member(type, key);
      if (inner === undefined) {
        this.#problems.add(path, `${reference.source}: ${whyNot(this.#reader, type, key, index)}`, "reference");
        return anyType;
      }
      type = inner;
    }
    return type;
  }

  #rootType({ root, step }: Reference, own: OwnTypes): SchemaType {
    switch (root) {
      case "input":
        return this.#input;
      case "steps": {
        const node = this.#plan.byName.get(step);
        return node === undefined ? anyType : this.seen(node.position);
      }
      default:
        return own[root] ?? anyType;
    }
  }
}

function whyNot(reader: SchemaReader, type: SchemaType, key: string | number, index: number): string {
  const shown = typeof key === "number" ? `element ${key}` : JSON.stringify(key.slice(0, 64));
  const kinds = reader.kindsOf(type);
  const fits = kinds.has(typeof key === "number" ? "array" : "object");
  if (fits) return `there is no ${shown} there`;
  return `what stands before its part ${index + 1} (${shown}) is ${inWords(kinds)}`;
}

/** The type of what a template gives. */
function typeOfTemplate(template: Template, typeOf: (placed: PlacedReference) => SchemaType): SchemaType {
  switch (template.kind) {
    case "constant":
      return { kind: "constant", value: template.value };
    case "reference":
      return typeOf(template);
    case "array":
      return { kind: "tuple", items: template.items.map((item) => typeOfTemplate(item, typeOf)) };
    case "object":
      return {
        kind: "object",
        members: new Map(template.members.map(([name, value]) => [name, typeOfTemplate(value, typeOf)])),
      };
  }
}

function object(members: Readonly<Record<string, SchemaType>>): SchemaType {
  return { kind: "object", members: new Map(Object.entries(members)) };
}
