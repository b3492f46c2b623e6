import { create } from "@bufbuild/protobuf";
import {
  type GetHealthResponse,
  GetHealthResponseSchema,
  type ReadinessService,
  type ServiceHealth,
  ServiceHealthSchema,
  ServingState,
} from "@cadre/gen/cadre/gateway/v1/health_pb";
import type { CallOptions, Client } from "@connectrpc/connect";
import { toAppError } from "../../runtime/errors/failure.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Dependency, Mode } from "../../runtime/platform/platform.ts";
import { checkReadiness } from "../../runtime/platform/readiness.ts";

export interface HealthOptions {
  /** The services that are asked, by name, without the gateway itself. */
  readonly peers: ReadonlyMap<string, Pick<Client<typeof ReadinessService>, "getReadiness">>;
  /** What the gateway itself needs to be ready. */
  readonly dependencies?: readonly Dependency[];
  readonly version: string;
  readonly mode: Mode;
  readonly log: Logger;
  /** How long a service may take to answer. Default 1,500 ms: it gives what it depends on a second. */
  readonly timeoutMs?: number;
  /** How old an answer to strangers may be. Default 1 s. */
  readonly maxAgeMs?: number;
}

/** Knows whether the installation serves. */
export interface Health {
  /** Asks every service now. Never rejects: a service that does not answer does not serve. */
  breakdown(options?: CallOptions): Promise<GetHealthResponse>;
  /**
   * Whether everything serves, as it was at most a second ago: strangers may
   * ask as often as they like without asking the services each time.
   */
  serves(): Promise<boolean>;
}

/** Asks the services of the mesh how they are. */
export function createHealth(options: HealthOptions): Health {
  const { peers, dependencies = [], version, mode, log, timeoutMs = 1_500, maxAgeMs = 1_000 } = options;
  let cached: { readonly answer: Promise<GetHealthResponse>; readonly untilMs: number } | undefined;

  async function ask(
    service: string,
    peer: Pick<Client<typeof ReadinessService>, "getReadiness">,
    options: CallOptions,
  ): Promise<ServiceHealth> {
    const signal = AbortSignal.timeout(timeoutMs);
    const ended = options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]);
    let detail = "its answer says nothing";
    try {
      const { health } = await peer.getReadiness({}, { ...options, signal: ended, timeoutMs });
      if (health !== undefined) return health;
    } catch (error) {
      log.debug({ err: error, service }, "a service did not say how it is");
      detail = signal.aborted ? `no answer within ${timeoutMs} ms` : toAppError(error).message;
    }
    const state = ServingState.NOT_SERVING;
    return create(ServiceHealthSchema, { service, state, dependencies: [{ name: "mesh", state, detail }] });
  }

  async function breakdown(options: CallOptions = {}): Promise<GetHealthResponse> {
    const own = create(ServiceHealthSchema, await checkReadiness("gateway", version, dependencies));
    const others = await Promise.all([...peers].map(([service, peer]) => ask(service, peer, options)));
    const services = [own, ...others].sort((a, b) => (a.service < b.service ? -1 : 1));
    const serving = services.every((service) => service.state === ServingState.SERVING);
    return create(GetHealthResponseSchema, {
      state: serving ? ServingState.SERVING : ServingState.NOT_SERVING,
      services,
      version,
      mode,
    });
  }

  return {
    breakdown,
    async serves() {
      const nowMs = performance.now();
      if (cached === undefined || nowMs >= cached.untilMs) {
        cached = { answer: breakdown(), untilMs: nowMs + maxAgeMs };
      }
      return (await cached.answer).state === ServingState.SERVING;
    },
  };
}
