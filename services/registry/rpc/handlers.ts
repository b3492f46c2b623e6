import { RegistryService } from "@cadre/gen/cadre/registry/v1/registry_pb";
import type { AuditSink } from "../../runtime/audit/audit-sink.ts";
import { type Implementation, implement } from "../../runtime/rpc/implementation.ts";
import { checkCompatibility } from "../app/check-compatibility.ts";
import { deleteSubject, deleteVersion } from "../app/delete-versions.ts";
import type { RegistryDeps } from "../app/deps.ts";
import { lookupSchema } from "../app/lookup-schema.ts";
import {
  getSchema,
  getVersion,
  listReferencing,
  listSubjects,
  listUsages,
  listVersions,
} from "../app/read-registry.ts";
import { registerSchema } from "../app/register-schema.ts";
import { getSettings, updateSettings } from "../app/settings.ts";
import { forceFor, orgOf, registrantOf } from "./caller.ts";
import {
  fromFinding,
  fromSchema,
  fromSettings,
  fromVersion,
  toPresence,
  toSchemaInput,
  toSettingsPatch,
} from "./convert.ts";

const defaultLimit = 1_000;

/**
 * The registry of the caller's org.
 *
 * @param audit where it is written, before it is committed, that a schema is forced
 */
export function registryHandlers(deps: RegistryDeps, audit: AuditSink): Implementation<typeof RegistryService> {
  return implement(RegistryService, {
    async registerSchema({ subject, schema }, context) {
      return {
        version: fromVersion(await registerSchema(deps, registrantOf(context), subject, toSchemaInput(schema))),
      };
    },
    async forceSchema({ subject, schema, reason }, context) {
      const force = forceFor(context, audit, reason);
      const found = await registerSchema(deps, registrantOf(context), subject, toSchemaInput(schema), force);
      return { version: fromVersion(found) };
    },
    async lookupSchema({ subject, schema, deleted }, context) {
      const found = await lookupSchema(deps, orgOf(context), subject, toSchemaInput(schema), deleted);
      return { version: fromVersion(found) };
    },
    async checkCompatibility({ subject, schema, version }, context) {
      const findings = await checkCompatibility(deps, orgOf(context), subject, toSchemaInput(schema), version);
      return { compatible: findings.length === 0, incompatibilities: findings.map(fromFinding) };
    },
    async listSubjects(request, context) {
      const page = { offset: request.offset, limit: request.limit || defaultLimit };
      const subjects = await listSubjects(deps, orgOf(context), request.prefix, toPresence(request), page);
      return { subjects: [...subjects] };
    },
    async listSubjectVersions(request, context) {
      const page = { offset: request.offset, limit: request.limit || defaultLimit };
      const versions = await listVersions(deps, orgOf(context), request.subject, toPresence(request), page);
      return { versions: [...versions] };
    },
    async getSubjectVersion({ subject, version, deleted, format }, context) {
      const found = await getVersion(deps, orgOf(context), subject, version, deleted);
      return { version: fromVersion(found, format) };
    },
    async listReferencingSchemas({ subject, version }, context) {
      return { schemaIds: [...(await listReferencing(deps, orgOf(context), subject, version))] };
    },
    async deleteSubject({ subject, permanent }, context) {
      return { versions: [...(await deleteSubject(deps, orgOf(context), subject, permanent))] };
    },
    async deleteSubjectVersion({ subject, version, permanent }, context) {
      return { version: await deleteVersion(deps, orgOf(context), subject, version, permanent) };
    },
    async getSchema({ schemaId, format }, context) {
      return fromSchema(await getSchema(deps, orgOf(context), schemaId), format);
    },
    async listSchemaUsages({ schemaId, deleted }, context) {
      const usages = await listUsages(deps, orgOf(context), schemaId, deleted);
      return { usages: usages.map(({ subject, version }) => ({ subject, version })) };
    },
    async getRegistrySettings({ subject }, context) {
      const { own, effective } = await getSettings(deps, orgOf(context), subject);
      return { own: fromSettings(own), effective: fromSettings(effective) };
    },
    async updateRegistrySettings(request, context) {
      const patch = toSettingsPatch(request);
      const { own, effective } = await updateSettings(deps, orgOf(context), request.subject, patch);
      return { previous: fromSettings(own), effective: fromSettings(effective) };
    },
  });
}
