import { defaultTimeoutMs } from "../domain/definition.ts";
import type { BuiltInTool } from "./built-in-tool.ts";

/** Returns what it was given. */
export const echo: BuiltInTool = {
  definition: {
    name: "echo",
    description: "Returns its arguments as they are. Useful to test that tools can be called.",
    inputSchema: { type: "object" },
    outputSchema: { type: "object" },
    sideEffects: "NONE",
    timeoutMs: defaultTimeoutMs,
  },
  run: (input) => input,
};
