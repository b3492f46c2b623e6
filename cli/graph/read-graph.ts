import { fromJson, toBinary } from "@bufbuild/protobuf";
import { type Graph, GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { readSource } from "../definition-file.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { MessageReader } from "./message-reader.ts";
import { parseYaml } from "./yaml-source.ts";

/**
 * Reads a graph from a YAML or JSON file, or from standard input for `-`. The
 * fields have the contract's names, times are texts such as `30s` or `5m`, and
 * a task is given by its key: `tool: { tool: echo, arguments: { … } }`.
 *
 * @throws CliError 2 with the line and column of what is wrong
 */
export async function readGraph(path: string): Promise<Graph> {
  return parseGraph(path, await readSource(path));
}

/**
 * Reads a graph from text.
 *
 * @param name the file's name, put before lines and columns
 * @throws CliError 2
 */
export function parseGraph(name: string, text: string): Graph {
  const source = parseYaml(name, text);
  const json = new MessageReader(source).message(GraphSchema, source.root, "");
  try {
    const graph = fromJson(GraphSchema, json);
    // A message can be made of what no bytes can be made of, for example of half a surrogate pair.
    toBinary(GraphSchema, graph);
    return graph;
  } catch (thrown) {
    throw new CliError(exitCode.usage, `${name}: ${(thrown as Error).message}`);
  }
}
