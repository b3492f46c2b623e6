import {
  create,
  type DescField,
  type DescMethod,
  type DescService,
  getOption,
  hasOption,
  ScalarType,
} from "@bufbuild/protobuf";
import { field as fieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { ApiKeyService } from "@cadre/gen/cadre/credentials/v1/api_key_pb";
import { AuditService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { IdentityService } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { TokenService } from "@cadre/gen/cadre/credentials/v1/token_pb";
import { DeadLetterService } from "@cadre/gen/cadre/events/v1/dead_letter_pb";
import { HealthService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { type Authz, AuthzSchema, authz } from "@cadre/gen/cadre/options/v1/options_pb";
import { AgentService } from "@cadre/gen/cadre/orchestrator/v1/agent_pb";
import { ModelService } from "@cadre/gen/cadre/orchestrator/v1/model_pb";
import { RunService } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { ScheduleService } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { ContractService } from "@cadre/gen/cadre/registry/v1/contract_pb";
import { RegistryService } from "@cadre/gen/cadre/registry/v1/registry_pb";
import { ToolService } from "@cadre/gen/cadre/tools/v1/tool_pb";
import { ToolWorkerService } from "@cadre/gen/cadre/tools/v1/tool_worker_pb";

/** Every public service. A test compares it with the contract, so that none is left out. */
export const publicServices: readonly DescService[] = [
  AgentService,
  ApiKeyService,
  AuditService,
  ContractService,
  DeadLetterService,
  HealthService,
  IdentityService,
  ModelService,
  RegistryService,
  RunService,
  ScheduleService,
  SessionService,
  TokenService,
  ToolService,
  ToolWorkerService,
];

/** A method that strangers reach, with what its contract says. */
export interface PublicMethod {
  readonly method: DescMethod;
  /** `package.Service/Method`. */
  readonly name: string;
  readonly authz: Authz;
  /** The request's fields that hold one id, by its prefix. */
  readonly ids: readonly { readonly field: string; readonly prefix: string }[];
}

/** All public methods, read from their descriptors. */
export const publicMethods: readonly PublicMethod[] = publicServices.flatMap((service) =>
  service.methods.map((method) => ({
    method,
    name: `${service.typeName}/${method.name}`,
    authz: hasOption(method, authz) ? getOption(method, authz) : create(AuthzSchema),
    ids: method.input.fields.flatMap((field) => {
      const prefix = idPrefixOf(field);
      return prefix === undefined ? [] : [{ field: field.name, prefix }];
    }),
  })),
);

/** The prefix of the ids that a field takes, from its rule: `^ses_[…]{26}$`. */
function idPrefixOf(field: DescField): string | undefined {
  if (field.fieldKind !== "scalar" || field.scalar !== ScalarType.STRING || !hasOption(field, fieldRules))
    return undefined;
  const rules = getOption(field, fieldRules).type;
  if (rules.case !== "string") return undefined;
  return /^\^([a-z]+)_\[/.exec(rules.value.pattern)?.[1];
}
