import { createHash } from "node:crypto";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { GraphSchema, type Graph as ProtoGraph } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { PinnedToolSchema } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { BoundedMap } from "../../../runtime/cache/bounded-map.ts";
import type { PinnedTool } from "../../domain/entry.ts";
import { checkGraph } from "../../domain/graph/check-graph.ts";
import type { Graph } from "../../domain/graph/graph.ts";
import type { ToolSchemas } from "../../domain/graph/surroundings.ts";
import type { JsonObject } from "../../domain/json.ts";
import { fromProtoGraph } from "../../store/graph-codec.ts";

/** A graph of a request that is right in itself, whatever its tools are. */
export interface CheckedGraph {
  readonly graph: Graph;
  /**
   * Checks that the graph fits tools; those that were checked before cost nothing.
   *
   * @throws AppError INVALID_GRAPH with all that does not fit
   */
  check(tools: readonly PinnedTool[]): void;
}

/** How many graphs are remembered; one may have a MiB, so larger ones are not. */
const maxGraphs = 256;
const maxRememberedBytes = 64 * 1024;
const anySchemas: ToolSchemas = { inputSchema: {}, outputSchema: undefined };

/** Checks graphs. The same one is checked once, as long as it is among those that came last. */
export class CheckedGraphs {
  readonly #known = new BoundedMap<string, CheckedGraph>(maxGraphs);
  /** By the message that they were taken from: an agent's definition is the same one each time. */
  readonly #taken = new WeakMap<ProtoGraph, CheckedGraph>();

  /**
   * Takes a graph over from a request whose rules were checked.
   *
   * @param field its path in the request
   * @throws AppError LIMIT_EXCEEDED if it is too large, INVALID_GRAPH with all that is wrong with it
   */
  take(proto: ProtoGraph, field: string): CheckedGraph {
    const taken = this.#taken.get(proto) ?? this.#find(proto, field);
    this.#taken.set(proto, taken);
    return taken;
  }

  #find(proto: ProtoGraph, field: string): CheckedGraph {
    const graph = (): CheckedGraph => newCheckedGraph(fromProtoGraph(proto, field), field);
    if (proto.steps.length > maxRememberedBytes / 64) return graph();
    const bytes = toBinary(GraphSchema, proto);
    if (bytes.length > maxRememberedBytes) return graph();
    const digest = createHash("sha256").update(bytes).digest("base64");
    let known = this.#known.get(digest);
    if (known === undefined) {
      known = graph();
      this.#known.set(digest, known);
    }
    return known;
  }
}

function newCheckedGraph(graph: Graph, field: string): CheckedGraph {
  checkGraph(graph, { tool: () => anySchemas, field });
  let checkedTools: string | undefined;
  return {
    graph,
    check(tools) {
      const digests = tools.map(({ name, digest }) => `${name}=${digest}`).join();
      if (digests === checkedTools) return;
      const schemas = new Map(tools.map((tool) => [tool.name, tool]));
      const found = new Map<string, ToolSchemas>();
      checkGraph(graph, {
        field,
        tool(name) {
          const tool = schemas.get(name);
          if (tool === undefined) return undefined;
          let known = found.get(name);
          if (known === undefined) {
            const outputSchema = fromBinary(PinnedToolSchema, tool.encoded).definition?.outputSchema;
            known = { inputSchema: tool.inputSchema, outputSchema: outputSchema as JsonObject | undefined };
            found.set(name, known);
          }
          return known;
        },
      });
      checkedTools = digests;
    },
  };
}
