import type { Graph } from "../../domain/graph/graph.ts";
import { compileGraph, type Plan } from "../../domain/graph/plan.ts";

const plans = new WeakMap<Graph, Plan>();

/** The plan of a graph, compiled once for each graph that is held. Throws INVALID_GRAPH. */
export function planOf(graph: Graph): Plan {
  let plan = plans.get(graph);
  if (plan === undefined) {
    plan = compileGraph(graph);
    plans.set(graph, plan);
  }
  return plan;
}
