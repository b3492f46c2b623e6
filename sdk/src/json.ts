import { createRegistry, type JsonObject, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { file_google_protobuf_struct, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { file_cadre_credentials_v1_api_key } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { file_cadre_credentials_v1_identity } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { file_cadre_credentials_v1_token } from "@cadre/gen/cadre/credentials/v1/token_pb";
import { file_cadre_events_v1_dead_letter } from "@cadre/gen/cadre/events/v1/dead_letter_pb";
import { file_cadre_gateway_v1_health } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { file_cadre_orchestrator_v1_agent } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { file_cadre_orchestrator_v1_graph } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { file_cadre_orchestrator_v1_model } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import { file_cadre_orchestrator_v1_run_event } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { file_cadre_orchestrator_v1_run } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { file_cadre_orchestrator_v1_schedule } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import { file_cadre_orchestrator_v1_session_event } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import { file_cadre_orchestrator_v1_session } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { file_cadre_registry_v1_contract } from "@cadre/gen/cadre/registry/v1/contract_pb";
import { file_cadre_registry_v1_field_use } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import { file_cadre_registry_v1_registry } from "@cadre/gen/cadre/registry/v1/registry_pb";
import { file_cadre_tools_v1_tool } from "@cadre/gen/cadre/tools/v1/tool_pb";

export type { JsonObject, JsonValue } from "@bufbuild/protobuf";

const registry = /*@__PURE__*/ createRegistry(
  file_google_protobuf_struct,
  file_cadre_credentials_v1_api_key,
  file_cadre_credentials_v1_identity,
  file_cadre_credentials_v1_token,
  file_cadre_events_v1_dead_letter,
  file_cadre_gateway_v1_health,
  file_cadre_orchestrator_v1_agent,
  file_cadre_orchestrator_v1_graph,
  file_cadre_orchestrator_v1_model,
  file_cadre_orchestrator_v1_run,
  file_cadre_orchestrator_v1_run_event,
  file_cadre_orchestrator_v1_schedule,
  file_cadre_orchestrator_v1_session,
  file_cadre_orchestrator_v1_session_event,
  file_cadre_registry_v1_contract,
  file_cadre_registry_v1_field_use,
  file_cadre_registry_v1_registry,
  file_cadre_tools_v1_tool,
);

/**
 * The JSON of a message, as the REST API gives it: fields in snake_case, 64-bit
 * numbers as text, times in RFC 3339. `JSON.stringify` alone fails on a message
 * with a 64-bit number.
 *
 * @throws TypeError if the message is none of this API
 *
 * @example
 * ```ts
 * const session = await cadre.sessions.create({ agent: "assistant" });
 * console.log(JSON.stringify(jsonOf(session.session)));
 * ```
 */
export function jsonOf(message: Message): JsonObject {
  const schema = registry.getMessage(message.$typeName);
  if (schema === undefined) throw new TypeError(`${message.$typeName} is no message of this API`);
  return toJson(schema, message, { registry, useProtoFieldName: true, alwaysEmitImplicit: true }) as JsonObject;
}

/** The JSON value that a message holds, for example a tool's result in an event. */
export function valueOf(value: Value): JsonValue {
  return toJson(ValueSchema, value);
}

/**
 * Copies what a program made into plain JSON, by the rules of `JSON.stringify`;
 * `undefined` becomes `null`.
 *
 * @throws TypeError if it has no JSON: a cycle, a bigint
 */
export function toJsonValue(value: unknown): JsonValue {
  const text = JSON.stringify(value);
  return text === undefined ? null : (JSON.parse(text) as JsonValue);
}
