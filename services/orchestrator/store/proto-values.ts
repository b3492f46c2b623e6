import { create, fromJson, type JsonObject as ProtoJsonObject, toBinary, toJson } from "@bufbuild/protobuf";
import { durationMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type PinnedAgent as ProtoPinnedAgent,
  type StepError as ProtoStepError,
  StepErrorSchema,
} from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { type AgentDefinition, AgentDefinitionSchema } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { PinnedToolSchema, type PinnedTool as ProtoPinnedTool, SideEffects } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { reasonName, reasonNumber } from "../../runtime/errors/failure.ts";
import type { PinnedAgent, PinnedTool, StepError } from "../domain/entry.ts";
import type { Json, JsonObject } from "../domain/json.ts";
import { damaged } from "../domain/run.ts";

/** Pins a tool's definition. */
export function fromProtoTool(tool: ProtoPinnedTool): PinnedTool {
  if (tool.definition === undefined) throw damaged("pins a tool without a definition");
  return {
    toolId: tool.toolId,
    digest: tool.digest,
    name: tool.definition.name,
    description: tool.definition.description,
    inputSchema: (tool.definition.inputSchema ?? {}) as JsonObject,
    pure: tool.definition.sideEffects === SideEffects.NONE,
    encoded: toBinary(PinnedToolSchema, tool),
  };
}

/** Pins an agent's definition. */
export function toPinnedAgent(
  agentId: string,
  revision: number,
  digest: string,
  definition: AgentDefinition,
): PinnedAgent {
  const { limits } = definition;
  return {
    agentId,
    revision,
    digest,
    name: definition.name,
    model: definition.model,
    instructions: definition.instructions,
    tools: definition.tools,
    maxToolRounds: limits?.maxToolRounds ?? 0,
    maxTokens: Number(limits?.maxTokens ?? 0n),
    maxDurationMs: limits?.maxDuration === undefined ? 0 : durationMs(limits.maxDuration),
    encoded: encodedOf(definition),
  };
}

const encodings = new WeakMap<AgentDefinition, Uint8Array>();

/** A definition's bytes, made once for each message that is held. */
function encodedOf(definition: AgentDefinition): Uint8Array {
  let encoded = encodings.get(definition);
  if (encoded === undefined) {
    encoded = toBinary(AgentDefinitionSchema, definition);
    encodings.set(definition, encoded);
  }
  return encoded;
}

/** A JSON value as Protobuf has it. */
export function toValue(value: Json) {
  return fromJson(ValueSchema, value as never);
}

/** A value of Protobuf as JSON. */
export function fromProtoValue(value: Value): Json {
  return toJson(ValueSchema, value) as Json;
}

/** A JSON object as Protobuf has it. */
export function toStruct(value: JsonObject): ProtoJsonObject {
  return value as ProtoJsonObject;
}

/** An agent as it was pinned. */
export function fromProtoAgent(agent: ProtoPinnedAgent, definition: AgentDefinition): PinnedAgent {
  return toPinnedAgent(agent.agentId, agent.revision, agent.digest, definition);
}

/** Why something failed, as the journal has it. */
export function toProtoError(error: StepError): ProtoStepError {
  return create(StepErrorSchema, { reason: reasonNumber(error.reason), message: error.message });
}

/** Why something failed. Throws DATA_LOSS if that is not said. */
export function fromProtoError(error: ProtoStepError | undefined): StepError {
  if (error === undefined) throw damaged("has a failure without a reason");
  return { reason: reasonName(error.reason), message: error.message };
}
