import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Definition } from "../domain/definition.ts";

/** What a built-in tool is told about its call. */
export interface BuiltInCall {
  /** The org that calls. */
  readonly orgId: string;
  /** The request that caused the call. */
  readonly requestId: string;
  /** Aborts when the call is cancelled or its time is over. */
  readonly signal: AbortSignal;
}

/**
 * A tool that is part of Cadre. It has no side effects, so it may be run again
 * at will and needs no record.
 */
export interface BuiltInTool {
  readonly definition: Definition;
  /**
   * Runs with arguments that match the input schema. Fails with AppError; what
   * it says goes to the model.
   */
  run(input: JsonObject, call: BuiltInCall): JsonValue | Promise<JsonValue>;
}
