import { create, type DescMethod, getOption, hasOption, type Message } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AuditDecision, AuditEventSchema } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { audit as auditOption, authz, host } from "@cadre/gen/cadre/options/v1/options_pb";
import { Code, type Interceptor, type StreamRequest, type UnaryRequest } from "@connectrpc/connect";
import type { AuditSink } from "../audit/audit-sink.ts";
import type { Denial, DenialLog } from "../audit/denial-log.ts";
import { limitDenial } from "../audit/limit-denial.ts";
import type { AppError } from "../errors/app-error.ts";
import { failureOf, toAppError } from "../errors/failure.ts";
import { Refusal } from "../identity/refusal.ts";
import { newId } from "../ids/id.ts";
import type { Logger } from "../log/log.ts";
import { observeStream } from "../rpc/message-stream.ts";
import { type RequestContext, requestContext } from "../rpc/request-context.ts";
import { traceIdOf } from "../telemetry/traceparent.ts";

// Who writes what, so that each call leaves one entry:
// 1. The process that let a request in writes it: the edge for what comes from
//    outside, the called service for what another service does by itself. What
//    the gateway forwards was written there.
// 2. A method of credentials is written by credentials itself, in the
//    transaction that does it, as the audit log is its own.
// 3. A refused credential whose true reason only credentials knows is written
//    there (`Refusal.audited`).

export interface AuditOptions {
  readonly plane: "edge" | "mesh";
  readonly sink: AuditSink;
  readonly denials: DenialLog;
  readonly log: Logger;
}

/** The two places where a call meets the audit log. */
export interface AuditInterceptors {
  /**
   * Stands outside of authentication: writes what any interceptor or handler
   * within refuses, before the caller is answered. What was denied stays denied
   * if it cannot be written; it is counted with the next row.
   */
  readonly denied: Interceptor;
  /**
   * Stands directly before the handler: writes that a method which declares an
   * audit event was allowed, before it is executed. If that cannot be written,
   * nothing is executed.
   *
   * @throws AppError AUTHZ_UNAVAILABLE if it cannot be written
   */
  readonly allowed: Interceptor;
}

/** Makes both interceptors over one sink. */
export function audit(options: AuditOptions): AuditInterceptors {
  const { plane, sink, denials, log } = options;
  const isOwn = (scope: RequestContext): boolean => plane === "edge" || scope.callingService !== "gateway";

  async function recordDenial(request: UnaryRequest | StreamRequest, thrown: unknown): Promise<void> {
    const failure = toAppError(thrown);
    const type = denialType(failure);
    if (type === undefined) return;
    const scope = requestContext(request.contextValues);
    const refusal = failure.cause instanceof Refusal ? failure.cause : undefined;
    if (refusal?.audited === true || !isOwn(scope)) return;
    await denials.record(toDenial(request, scope, type, failure, refusal));
  }

  return {
    denied: (next) => async (request) => {
      try {
        const response = await next(request);
        if (!response.stream) return response;
        const translate = async (thrown: unknown): Promise<unknown> => {
          await recordDenial(request, thrown);
          return thrown;
        };
        return { ...response, message: observeStream(response.message, { translate }) };
      } catch (thrown) {
        await recordDenial(request, thrown);
        throw thrown;
      }
    },
    allowed: (next) => async (request) => {
      const type = eventType(request.method);
      if (type === "") return next(request);
      const scope = requestContext(request.contextValues);
      if (!isOwn(scope)) return next(request);
      await sink.append(toAllowedEvent(request, scope, type, ""));
      try {
        return await next(request);
      } catch (thrown) {
        // It was allowed and failed: the entry before must not read as done.
        const { reason } = toAppError(thrown);
        await sink.append(toAllowedEvent(request, scope, type, reason)).catch((failure: unknown) => {
          log.error({ err: failure, type }, "the failure of an audited call could not be written to the audit log");
        });
        throw thrown;
      }
    },
  };
}

const eventTypes = new WeakMap<DescMethod, string>();

/** The audit event that a method declares and that is ours to write; empty for none. */
function eventType(method: DescMethod): string {
  let type = eventTypes.get(method);
  if (type === undefined) {
    const declared = hasOption(method, auditOption) && getOption(method.parent, host) !== "credentials";
    type = declared ? getOption(method, auditOption).event : "";
    eventTypes.set(method, type);
  }
  return type;
}

function denialType(failure: AppError): string | undefined {
  const limited = limitDenial(failure);
  if (limited !== undefined) return limited.type;
  switch (failure.reason) {
    case "IDEMPOTENCY_KEY_REUSED":
      return "idempotency.conflict";
    case "TOOL_NOT_GRANTED":
      return "tool.denied";
    case "SCHEMA_INCOMPATIBLE":
      return "schema.rejected";
    default:
  }
  switch (failureOf(failure.reason).code) {
    case Code.Unauthenticated:
      return "auth.failed";
    case Code.PermissionDenied:
      return "authz.denied";
    default:
      // Not refused by anybody, and not let in either.
      return failure.cause instanceof Refusal ? "auth.failed" : undefined;
  }
}

function toDenial(
  request: UnaryRequest | StreamRequest,
  scope: RequestContext,
  type: string,
  failure: AppError,
  refusal: Refusal | undefined,
): Denial {
  return {
    type,
    reason: refusal?.code ?? failure.reason,
    orgId: scope.principal?.orgId ?? refusal?.orgId ?? "",
    actor: actorOf(scope) || (refusal?.actor ?? ""),
    ...whereOf(request, scope),
    ...limitDenial(failure),
    ...toolOf(failure),
  };
}

function toAllowedEvent(request: UnaryRequest | StreamRequest, scope: RequestContext, type: string, reason: string) {
  return create(AuditEventSchema, {
    eventId: newId("evt"),
    at: timestampFromMs(Date.now()),
    type,
    reason,
    decision: AuditDecision.ALLOWED,
    orgId: scope.principal?.orgId ?? "",
    actor: actorOf(scope),
    count: 1,
    ...whereOf(request, scope),
  });
}

function actorOf(scope: RequestContext): string {
  return scope.principal?.subject ?? scope.callingService ?? "";
}

function whereOf(request: UnaryRequest | StreamRequest, scope: RequestContext) {
  return {
    action: `${request.service.typeName}/${request.method.name}`,
    resource: resourceOf(request),
    source: scope.source.slice(0, 64),
    requestId: scope.requestId,
    traceId: traceIdOf(scope.traceparent),
  };
}

/** The tool that a failure names, as the object. Its name is a stranger's text until it has the form of one. */
function toolOf({ metadata }: AppError): { readonly resource?: string } {
  const { tool } = metadata;
  return tool !== undefined && /^[a-z][a-z0-9_]{1,63}$/.test(tool) ? { resource: `tool/${tool}` } : {};
}

/** The kind of object, and its id where the request names one in the form of ours: nothing else of a request is kept. */
function resourceOf(request: UnaryRequest | StreamRequest): string {
  if (!hasOption(request.method, authz)) return "";
  const { resource, idField } = getOption(request.method, authz);
  const field = request.stream ? undefined : request.method.input.fields.find(({ name }) => name === idField);
  const id: unknown = field === undefined ? undefined : Reflect.get(request.message as Message, field.localName);
  return typeof id === "string" && /^[a-z]{3,8}_[0-9a-z]{26}$/.test(id) ? `${resource}/${id}` : resource;
}
