import type { DescService } from "@bufbuild/protobuf";
import { AuditSinkService } from "@cadre/gen/cadre/credentials/v1/audit_pb";
import { ContractCheckService } from "@cadre/gen/cadre/registry/v1/contract_pb";
import type { Client, Transport } from "@connectrpc/connect";
import { createRemoteAuditSink } from "../audit/batching-audit-sink.ts";
import { createDenialLog } from "../audit/denial-log.ts";
import type { RegistryAccess } from "../bus/confluent-registry.ts";
import type { KafkaConfig } from "../bus/kafka/kafka-settings.ts";
import type { MeshTrust, ServiceIdentity } from "../identity/service-identity.ts";
import { createServiceTokenVerifier } from "../identity/service-token.ts";
import { createServiceTokenAuthenticator } from "../identity/service-token-authenticator.ts";
import { createServiceTokenInterceptor } from "../identity/service-token-interceptor.ts";
import { accessRules } from "../interceptor/access-rule.ts";
import { meshInterceptors } from "../interceptor/chain.ts";
import type { Logger } from "../log/log.ts";
import type { Mesh, ServiceName } from "../mesh/mesh.ts";
import { createMeshClient } from "../rpc/mesh-client.ts";
import { clientSpan } from "../telemetry/client-span.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { createContractCheck } from "./contract-check.ts";
import type { Mode, Platform, ServiceAudit } from "./platform.ts";
import { serveWithHealth } from "./serve-with-health.ts";

export interface CreatePlatformOptions {
  readonly mode: Mode;
  readonly dataDirectory: string;
  readonly pageTokenKeyFile?: string | undefined;
  readonly version: string;
  readonly databaseUrl: string;
  /** Default: the bus is in PostgreSQL. */
  readonly kafka?: KafkaConfig | undefined;
  readonly registry?: RegistryAccess | undefined;
  readonly processId: string;
  readonly reflection: boolean;
  readonly log: Logger;
  readonly telemetry: Telemetry;
  readonly mesh: Mesh;
  /** The identity of a service of this process. */
  readonly identityOf: (name: ServiceName) => ServiceIdentity;
  readonly trust: MeshTrust;
}

/** Reflection of our contracts; open where it is on. */
const reflectionServices = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/** Puts together what the services of a process boot with. `stop` writes what audit still holds. */
export function createPlatform(options: CreatePlatformOptions): Platform & { stop(): Promise<void> } {
  const { log, mesh, telemetry } = options;
  const rules = accessRules({ openServices: options.reflection ? reflectionServices : [] });
  const transports = new Map<string, Transport>();
  const audits = new Map<ServiceName, ServiceAudit>();

  function transportTo(self: ServiceName, peer: ServiceName): Transport {
    const name = `${self} ${peer}`;
    let transport = transports.get(name);
    if (transport === undefined) {
      const token = createServiceTokenInterceptor(options.identityOf(self), peer);
      transport = mesh.transport(peer, [token, clientSpan(telemetry.tracer)]);
      transports.set(name, transport);
    }
    return transport;
  }

  function client<S extends DescService>(self: ServiceName, peer: ServiceName, service: S): Client<S> {
    return createMeshClient(service, transportTo(self, peer));
  }

  function audit(self: ServiceName, sink = createRemoteAuditSink(client(self, "credentials", AuditSinkService))) {
    let known = audits.get(self);
    if (known === undefined) {
      known = { sink, denials: createDenialLog({ sink, log: log.child({ component: "audit" }) }) };
      audits.set(self, known);
    }
    return known;
  }

  const contracts = createContractCheck({
    mode: options.mode,
    log: log.child({ component: "contracts" }),
    registryOf: (self) => client(self, "registry", ContractCheckService),
  });

  return {
    mode: options.mode,
    dataDirectory: options.dataDirectory,
    pageTokenKeyFile: options.pageTokenKeyFile,
    version: options.version,
    databaseUrl: options.databaseUrl,
    kafka: options.kafka,
    registry: options.registry,
    processId: options.processId,
    reflection: options.reflection,
    log,
    tracer: telemetry.tracer,
    meter: telemetry.meter,
    rules,
    renderMetrics: () => telemetry.renderMetrics(),
    audit: (self) => audit(self),
    client,
    contracts,
    serve(name, { implementations, dependencies, topics = [], auditSink }) {
      const interceptors = meshInterceptors({
        host: name,
        tracer: telemetry.tracer,
        meter: telemetry.meter,
        log: log.child({ component: name }),
        authenticator: createServiceTokenAuthenticator(createServiceTokenVerifier(name, options.trust)),
        rules,
        audit: audit(name, auditSink),
      });
      const files = implementations.map(({ service }) => service.file);
      return serveWithHealth(mesh, name, {
        implementations,
        dependencies: [...dependencies, ...contracts.watch(name, files, topics)],
        interceptors,
        version: options.version,
        reflection: options.reflection,
      });
    },
    async stop() {
      contracts.stop();
      await Promise.all([...audits.values()].map(({ denials }) => denials.stop()));
    },
  };
}
