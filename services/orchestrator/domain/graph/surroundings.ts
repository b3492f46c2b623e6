import type { JsonObject } from "../json.ts";

/** What is known around a graph. */
export interface GraphSurroundings {
  /** The schemas of a tool; undefined if there is no tool of that name that the run may call. */
  tool(name: string): ToolSchemas | undefined;
  /** The graph's path in the request, put before those of its parts; none unless said. */
  readonly field?: string;
}

/** What a tool takes and gives. */
export interface ToolSchemas {
  readonly inputSchema: JsonObject;
  /** Absent: any JSON value. */
  readonly outputSchema: JsonObject | undefined;
}
