import { createHash } from "node:crypto";
import type { JsonObject } from "@bufbuild/protobuf";
import { canonicalJson } from "../../runtime/json-schema/canonical-json.ts";

/** What a tool's call does outside; see `cadre.tools.v1.SideEffects`. */
export type SideEffects = "NONE" | "IDEMPOTENT" | "EFFECTFUL";

/** What a tool is, with the defaults filled in. */
export interface Definition {
  readonly name: string;
  readonly description: string;
  readonly inputSchema: JsonObject;
  /** Absent: any JSON value. */
  readonly outputSchema: JsonObject | undefined;
  readonly sideEffects: SideEffects;
  readonly timeoutMs: number;
}

/** How long a call may take unless its definition says otherwise, in milliseconds. */
export const defaultTimeoutMs = 30_000;

/**
 * The digest of a definition, as the contract states it at `ToolDefinition`:
 * equal definitions have equal digests, whoever computes them. The vectors in
 * `test/vectors/tool-digest.json` hold every implementation to it.
 */
export function digestOf(definition: Definition): string {
  const canonical = canonicalJson({
    version: 1,
    name: definition.name,
    description: definition.description,
    input_schema: definition.inputSchema,
    output_schema: definition.outputSchema ?? null,
    side_effects: definition.sideEffects,
    timeout_ms: definition.timeoutMs,
  });
  return `sha256:${createHash("sha256").update(canonical).digest("hex")}`;
}
