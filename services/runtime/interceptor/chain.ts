import type { Interceptor } from "@connectrpc/connect";
import type { Meter, Tracer } from "@opentelemetry/api";
import type { AuditSink } from "../audit/audit-sink.ts";
import type { DenialLog } from "../audit/denial-log.ts";
import type { Authenticator } from "../identity/authenticator.ts";
import type { Limits } from "../identity/limits.ts";
import type { Logger } from "../log/log.ts";
import type { AccessRules } from "./access-rule.ts";
import { audit } from "./audit.ts";
import { authentication } from "./authentication.ts";
import { authorization } from "./authorization.ts";
import { deadline } from "./deadline.ts";
import { errors } from "./errors.ts";
import { limits } from "./limits.ts";
import { quota } from "./quota.ts";
import { telemetry } from "./telemetry.ts";
import { validation } from "./validation.ts";

export interface InterceptorOptions {
  /** The service that is called. */
  readonly host: string;
  readonly tracer: Tracer;
  readonly meter: Meter;
  readonly log: Logger;
  readonly authenticator: Authenticator;
  readonly rules: AccessRules;
  readonly audit: { readonly sink: AuditSink; readonly denials: DenialLog };
}

/**
 * What every call passes on its way to a handler, outermost first; the one
 * place that knows the order. The deadline stands far out, because whatever
 * comes after it must end by it, too. Denials are written from outside of what
 * denies, what was allowed from right before it happens.
 */
export function meshInterceptors(options: InterceptorOptions): Interceptor[] {
  return chain({ ...options, plane: "mesh" });
}

/** The same for strangers, with their quota: in the mesh a forwarded call would count twice. */
export function edgeInterceptors(options: InterceptorOptions & { readonly limits: Limits }): Interceptor[] {
  return chain({ ...options, plane: "edge" }, quota({ limits: options.limits, log: options.log }));
}

function chain(options: InterceptorOptions & { readonly plane: "edge" | "mesh" }, quota?: Interceptor): Interceptor[] {
  const { log, rules, plane } = options;
  const audited = audit({ plane, log, ...options.audit });
  return [
    telemetry(options),
    errors(log),
    deadline(),
    limits(),
    audited.denied,
    authentication(options.authenticator, rules),
    ...(quota === undefined ? [] : [quota]),
    validation(),
    authorization(rules),
    audited.allowed,
  ];
}
