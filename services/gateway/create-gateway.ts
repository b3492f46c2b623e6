import { type DescService, getOption } from "@bufbuild/protobuf";
import { HealthService, type ReadinessService } from "@cadre/gen/cadre/gateway/v1/health_pb";
import { host } from "@cadre/gen/cadre/options/v1/options_pb";
import type { Client, Interceptor } from "@connectrpc/connect";
import { type ByteBudget, createByteBudget } from "../runtime/edge/byte-budget.ts";
import { createConnectHandler } from "../runtime/edge/connect-handler.ts";
import { type EdgeLimits, edgeLimits } from "../runtime/edge/edge-limits.ts";
import type { EdgeHandler } from "../runtime/edge/edge-request.ts";
import { logRefused, type OnRefused } from "../runtime/edge/refused-call.ts";
import type { Logger } from "../runtime/log/log.ts";
import type { Dependency, Mode } from "../runtime/platform/platform.ts";
import { type Implementation, implement } from "../runtime/rpc/implementation.ts";
import { createHealth, type Health } from "./app/health.ts";
import { createConfluentHandler } from "./confluent/confluent-handler.ts";
import { createUnaryHandler } from "./connect/unary-handler.ts";
import type { Contract } from "./contract/load-contract.ts";
import { isUnary } from "./contract/method-kind.ts";
import { forwardService, type StreamEndings } from "./forward/forward-service.ts";
import { createGatewayHandler } from "./http/gateway-handler.ts";
import { createOpenapi } from "./openapi/openapi.ts";
import { createLocalTransport } from "./rest/local-transport.ts";
import { createRestHandler } from "./rest/rest-handler.ts";
import { routesOf } from "./rest/route.ts";
import { createRouter } from "./rest/router.ts";
import { createHealthHandlers } from "./rpc/health-handlers.ts";

export interface GatewayOptions {
  readonly contract: Contract;
  /** A client of a service that the named process serves. */
  readonly client: <S extends DescService>(peer: string, service: S) => Client<S>;
  /** How each process of the contract but this one says how it is. */
  readonly readiness: (peer: string) => Pick<Client<typeof ReadinessService>, "getReadiness">;
  /** What this process needs to be ready; nothing by default. */
  readonly dependencies?: readonly Dependency[];
  /** What every call passes, whatever its protocol; outermost first. */
  readonly interceptors: readonly Interceptor[];
  /** Further services that this process serves itself, by Connect, gRPC and gRPC-Web alone. */
  readonly own?: readonly Implementation[];
  readonly log: Logger;
  /** Told of calls that are refused outside of the interceptors. */
  readonly onRefused?: OnRefused;
  readonly version: string;
  readonly mode: Mode;
  /** Exact origins whose pages may call; none by default. */
  readonly corsOrigins?: readonly string[];
  /** This process's metrics in the Prometheus text format. */
  readonly renderMetrics: () => Promise<string>;
  readonly limits?: Partial<EdgeLimits>;
  /** What requests are held in; one of its own by default. */
  readonly budget?: ByteBudget;
  /** When streams are ended because the process stops. */
  readonly endings?: StreamEndings;
  /** Times of event streams, as in `RestOptions`. */
  readonly streamTimes?: { readonly keepaliveMs?: number; readonly firstMessageMs?: number };
}

export interface Gateway {
  /** Answers what comes to the public port; give it to `createEdgeServer`. */
  readonly handler: EdgeHandler;
  readonly health: Health;
}

/** The process that this is, in the contract's `host` options. */
const self = "gateway";

/**
 * Puts the gateway together from the contract: its own service, a forwarder
 * for every other public one, and each method by every protocol through one
 * chain of interceptors.
 */
export function createGateway(options: GatewayOptions): Gateway {
  const { contract, client, interceptors, log, version, mode } = options;
  const limits: EdgeLimits = { ...edgeLimits, ...options.limits };
  const peers = contract.hosts.filter((name) => name !== self);
  const health = createHealth({
    peers: new Map(peers.map((peer) => [peer, options.readiness(peer)])),
    dependencies: options.dependencies ?? [],
    version,
    mode,
    log,
  });
  const implementations = contract.publicServices.map((service): Implementation => {
    const peer = getOption(service, host);
    if (peer !== self) {
      return forwardService(service, client(peer, service) as Client<DescService>, options.endings);
    }
    if (service.typeName !== HealthService.typeName) throw new TypeError(`${service.typeName} is served by nobody`);
    return implement(HealthService, createHealthHandlers({ health, renderMetrics: options.renderMetrics }));
  });
  const budget = options.budget ?? createByteBudget(limits);
  const onRefused = logRefused(log, options.onRefused);
  const transport = createLocalTransport(implementations, interceptors);
  const rest = createRestHandler({
    router: createRouter(routesOf(contract.publicServices)),
    transport,
    budget,
    onRefused,
    limits,
    ...options.streamTimes,
  });
  const adapter = createConnectHandler({
    implementations: [...implementations, ...(options.own ?? [])],
    interceptors,
    log,
    onRefused,
    limits,
    budget,
  });
  const connect = createUnaryHandler({
    methods: contract.publicServices.flatMap((service) => service.methods).filter(isUnary),
    transport,
    others: adapter,
    budget,
    onRefused,
    limits,
  });
  const openapi = createOpenapi({ services: contract.publicServices, version });
  const handler = createGatewayHandler({
    connect,
    confluent: createConfluentHandler({ transport, budget, onRefused }),
    rest,
    health,
    openapi,
    version,
    corsOrigins: options.corsOrigins ?? [],
  });
  return { handler, health };
}
