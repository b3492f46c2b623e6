import type { JsonValue } from "@bufbuild/protobuf";
import { SideEffects } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type { DefinedTool, ToolDefinitionInit } from "./define-tool.ts";

const sideEffectsNames = {
  [SideEffects.UNSPECIFIED]: "EFFECTFUL",
  [SideEffects.NONE]: "NONE",
  [SideEffects.IDEMPOTENT]: "IDEMPOTENT",
  [SideEffects.EFFECTFUL]: "EFFECTFUL",
} as const;

const defaultTimeoutMs = 30_000;

/**
 * The digest of a tool's definition, `sha256:` and 64 hexadecimal digits, as
 * the server computes it: runs pin it, and a tool that is registered has it in
 * `Tool.digest`. Needs no server, so that a build can see that a definition
 * changed.
 *
 * @param tool a tool that `defineTool` made, or a definition
 *
 * @example
 * ```ts
 * const served = await cadre.tools.find("order_status");
 * if (served?.digest !== (await toolDigest(orderStatus))) console.log("the server has another order_status");
 * ```
 */
export async function toolDigest(tool: DefinedTool | ToolDefinitionInit): Promise<string> {
  const definition = "definition" in tool ? tool.definition : tool;
  const { name, description, inputSchema, outputSchema, sideEffects, timeout } = definition;
  const canonical = canonicalJson({
    version: 1,
    name,
    description,
    input_schema: inputSchema ?? {},
    output_schema: outputSchema ?? null,
    side_effects: sideEffectsNames[sideEffects],
    timeout_ms:
      timeout === undefined ? defaultTimeoutMs : Number(timeout.seconds) * 1_000 + Math.ceil(timeout.nanos / 1e6),
  });
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(canonical));
  const hex = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `sha256:${hex}`;
}

/** JSON in its one canonical form, RFC 8785: no blanks, keys in the order of their UTF-16 code units. */
function canonicalJson(value: JsonValue): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  // The default order of sort() is that of UTF-16 code units.
  const members = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonicalJson(value[key] ?? null)}`);
  return `{${members.join(",")}}`;
}
