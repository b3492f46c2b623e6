import type { JsonObject } from "@bufbuild/protobuf";
import { AppError, type FieldViolation } from "../../runtime/errors/app-error.ts";
import type { CompiledJsonSchema } from "../../runtime/json-schema/json-schema.ts";
import { callLimits, exceedsBytes } from "../domain/call.ts";

/**
 * Checks a call's arguments before anything of it is stored or begun.
 *
 * @throws AppError TOOL_ARGUMENTS_INVALID; each violation's field is
 * `arguments` and a JSON Pointer
 */
export function checkArguments(input: CompiledJsonSchema, args: JsonObject): void {
  // By the schema first: it bounds itself, while writing JSON only to measure it costs what it costs.
  const violations = input.validate(args);
  if (violations.length > 0) throw invalid(violations);
  if (exceedsBytes(args, callLimits.maxJsonBytes)) {
    throw invalid([{ field: "", message: `are larger than ${callLimits.maxJsonBytes} bytes`, rule: "size" }]);
  }
}

function invalid(violations: readonly FieldViolation[]): AppError {
  return new AppError("TOOL_ARGUMENTS_INVALID", "the arguments do not match the tool's input schema", {
    violations: violations.map((violation) => ({ ...violation, field: `arguments${violation.field}` })),
  });
}
