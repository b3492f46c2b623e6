import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import type { Graph } from "../../services/orchestrator/domain/graph/graph.ts";
import type { ToolSchemas } from "../../services/orchestrator/domain/graph/surroundings.ts";
import { fromProtoGraph } from "../../services/orchestrator/store/graph-codec.ts";
import { AppError } from "../../services/runtime/errors/app-error.ts";

/** Reads a graph from JSON as the REST API takes it. */
export function graphOf(json: JsonObject): Graph {
  return fromProtoGraph(fromJson(GraphSchema, { name: "test", ...json }));
}

/** A step that calls the tool `echo`, in JSON. */
export function echo(name: string, args: JsonObject = {}, after: readonly (string | JsonObject)[] = []): JsonObject {
  return {
    name,
    after: after.map((edge) => (typeof edge === "string" ? { step: edge } : edge)),
    tool: { tool: "echo", arguments: args },
  };
}

/** A reference in a template, in JSON. */
export function ref(source: string): JsonObject {
  return { $ref: source };
}

/** Tools by name; `echo` takes and gives anything. */
export function toolsOf(more: Readonly<Record<string, ToolSchemas>> = {}): (name: string) => ToolSchemas | undefined {
  const tools = new Map(Object.entries({ echo: { inputSchema: {}, outputSchema: undefined }, ...more }));
  return (name) => tools.get(name);
}

/** What a graph was refused for, each as `path: message`; empty if it was not. Throws what is no refusal. */
export function refusals(attempt: () => void): string[] {
  try {
    attempt();
    return [];
  } catch (thrown) {
    if (!(thrown instanceof AppError)) throw thrown;
    return thrown.violations.map(({ field, message }) => `${field}: ${message}`);
  }
}
