import {
  Compatibility,
  type GetRegistrySettingsResponse,
  RegistryMode,
} from "@cadre/gen/cadre/registry/v1/registry_pb";
import {
  compatibilityName,
  fromSchema,
  fromVersion,
  modeName,
  schemaTypes,
  toCompatibility,
  toFormat,
  toMode,
  toSchemaText,
} from "./confluent-body.ts";
import {
  type ConfluentAnswer,
  type ConfluentCall,
  flag,
  pageOf,
  schemaIdOf,
  subjectOf,
  versionOf,
} from "./confluent-call.ts";
import { ConfluentError } from "./confluent-error.ts";

/** A route of the Confluent Schema Registry: `GET /subjects/{}/versions`, and what it calls. */
export type ConfluentRoutes = Readonly<Record<string, (call: ConfluentCall) => Promise<ConfluentAnswer>>>;

/** All of them, by method and path; `{}` stands for one segment. */
export const confluentRoutes: ConfluentRoutes = {
  "GET /": async () => ({ json: {} }),
  "GET /schemas/types": async () => ({ json: schemaTypes }),

  "GET /subjects": async (call) => {
    const request = { prefix: call.query.get("subjectPrefix") ?? "", ...presenceOf(call), ...pageOf(call) };
    return { json: (await call.registry.listSubjects(request, call.options)).subjects };
  },
  "POST /subjects/{}": async (call) => {
    const request = { subject: subjectOf(call), schema: schemaOf(call), deleted: flag(call, "deleted") };
    return { json: fromVersion((await call.registry.lookupSchema(request, call.options)).version) };
  },
  "DELETE /subjects/{}": async (call) => {
    const request = { subject: subjectOf(call), permanent: flag(call, "permanent") };
    return { json: (await call.registry.deleteSubject(request, call.options)).versions };
  },

  "GET /subjects/{}/versions": async (call) => {
    const request = { subject: subjectOf(call), ...presenceOf(call), ...pageOf(call) };
    return { json: (await call.registry.listSubjectVersions(request, call.options)).versions };
  },
  "POST /subjects/{}/versions": async (call) => {
    const request = { subject: subjectOf(call), schema: schemaOf(call) };
    const { version } = await call.registry.registerSchema(request, call.options);
    return { json: { id: version?.schemaId } };
  },
  "GET /subjects/{}/versions/{}": async (call) => ({ json: fromVersion(await getVersion(call)) }),
  "GET /subjects/{}/versions/{}/schema": async (call) => ({ text: (await getVersion(call))?.schema ?? "" }),
  "GET /subjects/{}/versions/{}/referencedby": async (call) => {
    const request = { subject: subjectOf(call), version: versionOf(call) };
    return { json: (await call.registry.listReferencingSchemas(request, call.options)).schemaIds };
  },
  "DELETE /subjects/{}/versions/{}": async (call) => {
    const request = { subject: subjectOf(call), version: versionOf(call), permanent: flag(call, "permanent") };
    return { json: (await call.registry.deleteSubjectVersion(request, call.options)).version };
  },

  "GET /schemas/ids/{}": async (call) => ({ json: fromSchema(await getSchema(call)) }),
  "GET /schemas/ids/{}/schema": async (call) => ({ text: (await getSchema(call)).schema }),
  "GET /schemas/ids/{}/versions": async (call) => ({
    json: (await usagesOf(call)).map(({ subject, version }) => ({ subject, version })),
  }),
  "GET /schemas/ids/{}/subjects": async (call) => ({
    json: [...new Set((await usagesOf(call)).map(({ subject }) => subject))],
  }),

  "POST /compatibility/subjects/{}/versions": (call) => checkCompatibility(call, undefined),
  "POST /compatibility/subjects/{}/versions/{}": (call) => checkCompatibility(call, versionOf(call)),

  "GET /config": async (call) => ({
    json: { compatibilityLevel: compatibilityName((await settingsOf(call)).effective?.compatibility) },
  }),
  "GET /config/{}": async (call) => {
    const { own, effective } = await settingsOf(call);
    const isOwn = own !== undefined && own.compatibility !== Compatibility.UNSPECIFIED;
    if (!isOwn && !flag(call, "defaultToGlobal")) throw noCompatibility(call);
    return { json: { compatibilityLevel: compatibilityName(effective?.compatibility) } };
  },
  "PUT /config": putCompatibility,
  "PUT /config/{}": putCompatibility,
  "DELETE /config": deleteCompatibility,
  "DELETE /config/{}": async (call) => {
    const { own } = await settingsOf(call);
    if (own?.compatibility === Compatibility.UNSPECIFIED) throw noCompatibility(call);
    return deleteCompatibility(call);
  },

  "GET /mode": async (call) => ({ json: { mode: modeName((await settingsOf(call)).effective?.mode) } }),
  "GET /mode/{}": async (call) => {
    const { own, effective } = await settingsOf(call);
    const isOwn = own !== undefined && own.mode !== RegistryMode.UNSPECIFIED;
    if (!isOwn && !flag(call, "defaultToGlobal")) throw noMode(call);
    return { json: { mode: modeName(effective?.mode) } };
  },
  "PUT /mode": putMode,
  "PUT /mode/{}": putMode,
  "DELETE /mode/{}": async (call) => {
    const { own } = await settingsOf(call);
    if (own?.mode === RegistryMode.UNSPECIFIED) throw noMode(call);
    const request = { subject: subjectOf(call), mode: RegistryMode.UNSPECIFIED };
    const { previous } = await call.registry.updateRegistrySettings(request, call.options);
    return { json: { mode: modeName(previous?.mode) } };
  },
};

function presenceOf(call: ConfluentCall): { readonly deleted: boolean; readonly deletedOnly: boolean } {
  return { deleted: flag(call, "deleted"), deletedOnly: flag(call, "deletedOnly") };
}

function schemaOf(call: ConfluentCall) {
  return toSchemaText(call.body, flag(call, "normalize"));
}

async function getVersion(call: ConfluentCall) {
  const request = {
    subject: subjectOf(call),
    version: versionOf(call),
    deleted: flag(call, "deleted"),
    format: toFormat(call.query.get("format") ?? ""),
  };
  return (await call.registry.getSubjectVersion(request, call.options)).version;
}

function getSchema(call: ConfluentCall) {
  const request = { schemaId: schemaIdOf(call), format: toFormat(call.query.get("format") ?? "") };
  return call.registry.getSchema(request, call.options);
}

async function usagesOf(call: ConfluentCall) {
  const request = { schemaId: schemaIdOf(call), deleted: flag(call, "deleted") };
  return (await call.registry.listSchemaUsages(request, call.options)).usages;
}

async function checkCompatibility(call: ConfluentCall, version: number | undefined): Promise<ConfluentAnswer> {
  const request = {
    subject: subjectOf(call),
    schema: schemaOf(call),
    ...(version === undefined ? {} : { version }),
  };
  const { compatible, incompatibilities } = await call.registry.checkCompatibility(request, call.options);
  const messages = incompatibilities.map(({ message }) => message);
  return { json: { is_compatible: compatible, ...(flag(call, "verbose") ? { messages } : {}) } };
}

function settingsOf(call: ConfluentCall): Promise<GetRegistrySettingsResponse> {
  return call.registry.getRegistrySettings({ subject: subjectOf(call) }, call.options);
}

async function putCompatibility(call: ConfluentCall): Promise<ConfluentAnswer> {
  const compatibility = toCompatibility(call.body);
  await call.registry.updateRegistrySettings({ subject: subjectOf(call), compatibility }, call.options);
  return { json: { compatibility: compatibilityName(compatibility) } };
}

async function deleteCompatibility(call: ConfluentCall): Promise<ConfluentAnswer> {
  const request = { subject: subjectOf(call), compatibility: Compatibility.UNSPECIFIED };
  const { previous, effective } = await call.registry.updateRegistrySettings(request, call.options);
  const level = previous?.compatibility === Compatibility.UNSPECIFIED ? effective : previous;
  return { json: { compatibilityLevel: compatibilityName(level?.compatibility) } };
}

async function putMode(call: ConfluentCall): Promise<ConfluentAnswer> {
  const mode = toMode(call.body);
  await call.registry.updateRegistrySettings({ subject: subjectOf(call), mode }, call.options);
  return { json: { mode: modeName(mode) } };
}

function noCompatibility(call: ConfluentCall): ConfluentError {
  return new ConfluentError(40408, `subject ${subjectOf(call)} has no compatibility of its own`);
}

function noMode(call: ConfluentCall): ConfluentError {
  return new ConfluentError(40409, `subject ${subjectOf(call)} has no mode of its own`);
}
