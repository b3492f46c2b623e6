import { type Graph, type Task, taskField } from "./graph.ts";

/** A graph that stands in another one, or that one itself. */
export interface NestedGraph {
  readonly graph: Graph;
  /** Its path, to be put before those of its parts: empty, or ends with a dot. */
  readonly path: string;
  /** 1 for the outermost. */
  readonly depth: number;
}

/** A graph and the inline children in it, the outer before the inner. */
export function* graphsOf(graph: Graph, path: string): Generator<NestedGraph> {
  const waiting: NestedGraph[] = [{ graph, path, depth: 1 }];
  for (let nested = waiting.shift(); nested !== undefined; nested = waiting.shift()) {
    yield nested;
    for (const [index, { task }] of nested.graph.steps.entries()) {
      const child = inlineChild(task);
      if (child === undefined) continue;
      const place = task.kind === "fan-out" ? "fan_out.child_run" : taskField[task.kind];
      waiting.push({
        graph: child,
        path: `${nested.path}steps[${index}].${place}.graph.`,
        depth: nested.depth + 1,
      });
    }
  }
}

/** What the runs of a graph and of its inline children need to find at their start, each sorted. */
export interface NeededNames {
  readonly tools: readonly string[];
  readonly agents: readonly string[];
  readonly models: readonly string[];
}

/** The names of tools, agents and models in a graph. */
export function namesOf(graph: Graph): NeededNames {
  const tools = new Set<string>();
  const agents = new Set<string>();
  const models = new Set<string>();
  for (const { graph: nested } of graphsOf(graph, "")) {
    for (const { task, compensation } of nested.steps) {
      if (compensation !== undefined) tools.add(compensation.tool);
      const body = task.kind === "fan-out" ? task.task : task;
      if (body.kind === "tool") tools.add(body.tool);
      else if (body.kind === "model") models.add(body.model);
      else if (body.kind === "agent") agents.add(body.agent);
      else if (body.kind === "child-run" && "agent" in body.definition) agents.add(body.definition.agent);
    }
  }
  return { tools: [...tools].sort(), agents: [...agents].sort(), models: [...models].sort() };
}

function inlineChild(task: Task): Graph | undefined {
  const body = task.kind === "fan-out" ? task.task : task;
  return body.kind === "child-run" && "graph" in body.definition ? body.definition.graph : undefined;
}
