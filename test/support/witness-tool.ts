import type { MessageInitShape } from "@bufbuild/protobuf";
import { SideEffects, type ToolDefinitionSchema } from "@cadre/gen/cadre/tools/v1/tool_pb";

/** The tool of `tool-worker-process.ts`: its effect can be counted in a file. */
export const witness: MessageInitShape<typeof ToolDefinitionSchema> = {
  name: "witness",
  description: "Appends lines to a file.",
  inputSchema: { type: "object", properties: { deaf: { type: "boolean" } } },
  sideEffects: SideEffects.EFFECTFUL,
};
