import { AppError } from "../../runtime/errors/app-error.ts";
import { compileJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import { type Definition, digestOf } from "../domain/definition.ts";
import type { DigestedDefinition, StoredTool } from "../store/tool-store.ts";
import type { ToolsDeps } from "./deps.ts";
import { registrationLimits } from "./org-limits.ts";

/** Makes a definition the one in force. Throws AppError INVALID_SCHEMA, ALREADY_EXISTS, LIMIT_EXCEEDED. */
export async function registerTool(
  deps: Pick<ToolsDeps, "tools" | "builtIns" | "limits">,
  orgId: string,
  definition: Definition,
): Promise<StoredTool> {
  const checked = checkDefinition(deps, definition, "definition");
  return deps.tools.register(orgId, checked, await registrationLimits(deps.limits, orgId));
}

/**
 * Checks a definition that somebody wants to serve, and computes its digest.
 *
 * @param field its path in the request
 * @throws AppError INVALID_SCHEMA; ALREADY_EXISTS if a built-in tool has the name
 */
export function checkDefinition(
  deps: Pick<ToolsDeps, "builtIns">,
  definition: Definition,
  field: string,
): DigestedDefinition {
  const { name, inputSchema, outputSchema } = definition;
  if (deps.builtIns.has(name)) throw new AppError("ALREADY_EXISTS", `a built-in tool is called ${name}`);
  compileJsonSchema(inputSchema, { field: `${field}.input_schema` });
  if (inputSchema["type"] !== "object") {
    const violation = { field: `${field}.input_schema/type`, message: "must be object", rule: "json_schema" };
    throw new AppError("INVALID_SCHEMA", "the arguments of a tool are an object", { violations: [violation] });
  }
  if (outputSchema !== undefined) compileJsonSchema(outputSchema, { field: `${field}.output_schema` });
  return { definition, digest: digestOf(definition) };
}
