import type { JsonObject as ProtoJsonObject } from "@bufbuild/protobuf";
import { findSchemaFaults } from "../../../runtime/json-schema/json-schema.ts";
import type { JsonObject } from "../json.ts";
import { checkNumbers } from "./check-numbers.ts";
import { GraphTypes } from "./check-types.ts";
import { type Graph, graphLimits } from "./graph.ts";
import { graphsOf } from "./names.ts";
import { type Plan, readPlan } from "./plan.ts";
import { graphTooLarge, Problems } from "./problems.ts";
import type { GraphSurroundings } from "./surroundings.ts";

/**
 * Refuses a graph that cannot be right, before anything of it is stored: sizes
 * first, then names, edges, references, conditions and schemas, then types as
 * far as schemas tell them. Refuses nothing that may be right: what schemas
 * leave open is left to the run.
 *
 * @throws AppError LIMIT_EXCEEDED if the graph is too large; INVALID_GRAPH with
 * all that is wrong with it
 */
export function checkGraph(graph: Graph, surroundings: GraphSurroundings): void {
  const { field = "" } = surroundings;
  const problems = new Problems();
  checkSize(graph, field);
  const plans = new Map<Graph, Plan>();
  const nested = [...graphsOf(graph, field === "" ? "" : `${field}.`)];
  for (const { graph: part, path } of nested) {
    const plan = readPlan(part, path, problems);
    checkDepth(plan, field);
    plans.set(part, plan);
    checkNumbers(part, path, problems);
    checkSchemas(part, path, problems);
  }
  const types = new GraphTypes(plans, surroundings, problems);
  // The inner first: what a child gives is asked for where it is started.
  for (const { graph: part, path } of nested.reverse()) types.check(part, path);
  problems.throwIfFound();
}

function checkSize(graph: Graph, field: string): void {
  let steps = 0;
  let conditions = 0;
  for (const { graph: part, depth } of graphsOf(graph, "")) {
    if (depth > graphLimits.childDepth) {
      throw graphTooLarge(
        field,
        `has children more than ${graphLimits.childDepth} deep within each other`,
        "childDepth",
      );
    }
    steps += part.steps.length;
    if (steps > graphLimits.steps) throw graphTooLarge(field, `has more than ${graphLimits.steps} steps`, "steps");
    for (const { after } of part.steps) for (const { when } of after) conditions += when.length;
  }
  if (conditions > graphLimits.conditionLength) {
    throw graphTooLarge(
      field,
      `has conditions of more than ${graphLimits.conditionLength} characters`,
      "conditionLength",
    );
  }
}

/** How many steps wait for one another in a row. In a plan with a cycle this means nothing, but does no harm. */
function checkDepth({ nodes }: Plan, field: string): void {
  const depths: number[] = [];
  for (const { position, waitsFor } of nodes) {
    let deepest = 0;
    for (const before of waitsFor) deepest = Math.max(deepest, depths[before] ?? 0);
    depths[position] = deepest + 1;
    if (deepest >= graphLimits.depth) {
      throw graphTooLarge(
        field,
        `has more than ${graphLimits.depth} steps that wait for one another in a row`,
        "depth",
      );
    }
  }
}

function checkSchemas(graph: Graph, path: string, problems: Problems): void {
  const check = (schema: JsonObject | undefined, field: string) => {
    if (schema === undefined) return;
    for (const fault of findSchemaFaults(schema as ProtoJsonObject, field))
      problems.add(fault.field, fault.message, "json_schema");
  };
  check(graph.inputSchema, `${path}input_schema`);
  for (const [index, { task }] of graph.steps.entries()) {
    const place = `${path}steps[${index}]`;
    const [body, bodyPlace] = task.kind === "fan-out" ? [task.task, `${place}.fan_out`] : [task, place];
    if (body.kind === "model" || body.kind === "agent")
      check(body.answerSchema, `${bodyPlace}.${body.kind}.answer_schema`);
  }
}
