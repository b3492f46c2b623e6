import type { DescService } from "@bufbuild/protobuf";
import type { ServingState } from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { Client } from "@connectrpc/connect";
import type { Meter, Tracer } from "@opentelemetry/api";
import type { AuditSink } from "../audit/audit-sink.ts";
import type { DenialLog } from "../audit/denial-log.ts";
import type { RegistryAccess } from "../bus/confluent-registry.ts";
import type { KafkaConfig } from "../bus/kafka/kafka-settings.ts";
import type { AccessRules } from "../interceptor/access-rule.ts";
import type { Logger } from "../log/log.ts";
import type { MeshServer, ServiceName } from "../mesh/mesh.ts";
import type { Implementation } from "../rpc/implementation.ts";
import type { ContractCheck, StatedTopic } from "./contract-check.ts";

/** `production` must be declared; it refuses to start unsafe. */
export type Mode = "embedded" | "production";

/**
 * What every service boots with, made once a process by the composition root.
 * In the embedded topology all services of the process share one.
 */
export interface Platform {
  readonly mode: Mode;
  /** The data directory, absolute. */
  readonly dataDirectory: string;
  /** The file with the key of page tokens; `undefined` for one in the data directory. */
  readonly pageTokenKeyFile: string | undefined;
  /** The version of this build. */
  readonly version: string;
  /** The PostgreSQL that the services' schemas live in. */
  readonly databaseUrl: string;
  /** The Kafka that facts go to; `undefined` if they go to the bus in PostgreSQL. */
  readonly kafka: KafkaConfig | undefined;
  /** The registry whose ids events carry; undefined for ids made from the build. */
  readonly registry: RegistryAccess | undefined;
  readonly log: Logger;
  readonly tracer: Tracer;
  readonly meter: Meter;
  /** Unique for each start of the process. */
  readonly processId: string;
  /** What each method demands of its caller. */
  readonly rules: AccessRules;
  /** Whether server reflection answers. */
  readonly reflection: boolean;
  /** The process's metrics in the Prometheus text format. */
  renderMetrics(): Promise<string>;
  /** Where a service's audit events go: to credentials, unless the service has a sink of its own. */
  audit(self: ServiceName): ServiceAudit;
  /**
   * A typed client of a peer. Calls carry the service's own identity, the
   * principal, trace and request id of `onBehalfOf`, and the rest of the
   * deadline less 50 ms. The peer need not run yet.
   */
  client<S extends DescService>(self: ServiceName, peer: ServiceName, service: S): Client<S>;
  /** Has the contracts of a service watched that serves by itself; `serve` does so for the others. */
  readonly contracts: Pick<ContractCheck, "watch">;
  /** Serves a service on the mesh with all interceptors, health, readiness and reflection. */
  serve(name: ServiceName, options: ServeOptions): Promise<MeshServer>;
}

/** A service's way to the audit log. */
export interface ServiceAudit {
  readonly sink: AuditSink;
  readonly denials: DenialLog;
}

export interface ServeOptions {
  readonly implementations: readonly Implementation[];
  /** What the service needs to serve, checked when readiness is asked for. */
  readonly dependencies: readonly Dependency[];
  /** The topics whose events it states or handles; their contracts must be registered. */
  readonly topics?: readonly StatedTopic[];
  /** Where the service's own audit events go; to credentials unless given. */
  readonly auditSink?: AuditSink;
}

/** Something that a service needs. */
export interface Dependency {
  /** For example `postgres`. */
  readonly name: string;
  /** Whether the service serves without it, as far as its bounds allow. It is told all the same. Default false. */
  readonly servesWithout?: boolean;
  /** How it is now; answers within a second. Never rejects. */
  check(): Promise<{ readonly state: ServingState; readonly detail: string }>;
}

/** A started service. */
export interface RunningService {
  readonly name: ServiceName;
  /**
   * Stops in order: no new calls, the running ones to their end within
   * `graceMs`, then what it holds. Idempotent.
   */
  stop(graceMs: number): Promise<void>;
}

/** What `main.ts` of each service exports. `C` is its parsed configuration. */
export type StartService<C> = (platform: Platform, config: C) => Promise<RunningService>;
