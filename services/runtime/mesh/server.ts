import { Server, type ServerCredentials, ServerInterceptingCall, type ServerInterceptor } from "@grpc/grpc-js";
import { AppError } from "../errors/app-error.ts";
import { toConnectError } from "../errors/failure.ts";
import type { Logger } from "../log/log.ts";
import { type ServedMethod, serveMethods } from "../rpc/invoke.ts";
import { bytesCodec, type MessageLimits } from "../rpc/message-codec.ts";
import { Roster } from "../rpc/roster.ts";
import { connectionIdentity } from "./connection-identity.ts";
import type { MeshServer, MeshServerOptions } from "./mesh.ts";
import { serviceDefinition } from "./method-definition.ts";
import { answerCall, type RunningCall } from "./server-call.ts";

/** How long connections live, and how their peers prove that they are there. */
export interface ConnectionOptions {
  /** A connection is told to go after this time, give or take 10 %, so that load spreads over new servers. Default 1 h. */
  readonly maxAgeMs: number;
  /** What runs on such a connection is cut after this time. Default 5 min. */
  readonly maxAgeGraceMs: number;
  /** A ping is sent after this time without a frame; by clients with calls running only. Default 30 s. */
  readonly pingMs: number;
  /** A connection whose ping is not answered in this time is dead. Default 10 s. */
  readonly pingTimeoutMs: number;
}

export const defaultConnections: ConnectionOptions = {
  maxAgeMs: 3_600_000,
  maxAgeGraceMs: 300_000,
  pingMs: 30_000,
  pingTimeoutMs: 10_000,
};

export interface GrpcServerOptions extends MeshServerOptions {
  /** Where to listen, `host:port`; port 0 takes a free one. */
  readonly listen: string;
  readonly credentials: ServerCredentials;
  readonly limits: MessageLimits;
  readonly connections: ConnectionOptions;
  readonly log: Logger;
}

/**
 * Serves implementations by gRPC over grpc-js.
 *
 * @throws Error if the address cannot be bound
 */
export async function startGrpcServer(options: GrpcServerOptions): Promise<MeshServer> {
  const { connections, limits, log } = options;
  const served = serveMethods(options.implementations, options.interceptors, bytesCodec, limits);
  const running = new Roster<RunningCall>();
  const server = new Server({
    // Ours is the limit that names a reason; beyond twice that, grpc-js stops reading.
    "grpc.max_receive_message_length": 2 * Math.max(limits.unaryMaxBytes, limits.streamMaxBytes),
    "grpc.max_send_message_length": -1,
    "grpc.max_connection_age_ms": connections.maxAgeMs,
    "grpc.max_connection_age_grace_ms": connections.maxAgeGraceMs,
    "grpc.keepalive_time_ms": connections.pingMs,
    "grpc.keepalive_timeout_ms": connections.pingTimeoutMs,
    "grpc.max_concurrent_streams": 10_000,
    // Without channelz grpc-js does not know its sessions, and `forceShutdown` cuts none.
    "grpc.enable_channelz": 1,
    interceptors: [answering(served, running, log)],
  });
  for (const { service } of options.implementations) server.addService(serviceDefinition(service.methods), {});
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(options.listen, options.credentials, (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  let closed: Promise<void> | undefined;
  return {
    address: `${options.listen.slice(0, options.listen.lastIndexOf(":"))}:${port}`,
    close(graceMs) {
      closed ??= shutDown(server, running, graceMs);
      return closed;
    },
  };
}

/**
 * The grpc-js interceptor that answers every call itself: the handlers that
 * grpc-js would call, with its stream objects, are never reached.
 */
function answering(
  served: ReadonlyMap<string, ServedMethod<Uint8Array>>,
  running: Roster<RunningCall>,
  log: Logger,
): ServerInterceptor {
  return (definition, call) => {
    const method = served.get(definition.path);
    // grpc-js answers UNIMPLEMENTED for paths that were not added.
    if (method === undefined) throw new TypeError(`${definition.path} was added without a handler`);
    return new AnsweredCall(call, () =>
      answerCall(call, method, { log, running, peerIdentity: connectionIdentity(call) }),
    );
  };
}

class AnsweredCall extends ServerInterceptingCall {
  readonly #answer: () => void;

  constructor(call: ConstructorParameters<typeof ServerInterceptingCall>[0], answer: () => void) {
    super(call);
    this.#answer = answer;
  }

  override start(): void {
    this.#answer();
  }
}

/** How long the answers to calls that were cut may take to go out. */
const flushMs = 1_000;

/** Refuses new calls, waits for the running ones, then cuts what is left. */
async function shutDown(server: Server, running: Roster<RunningCall>, graceMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  await new Promise<void>((resolve, reject) => {
    timer = setTimeout(() => {
      const failure = toConnectError(new AppError("SHUTTING_DOWN", "the service has stopped"), "");
      for (const call of running) call.cut(failure);
      timer = setTimeout(() => {
        server.forceShutdown();
        resolve();
      }, flushMs);
    }, graceMs);
    server.tryShutdown((error) => {
      if (error === undefined) resolve();
      else reject(error);
    });
  });
  clearTimeout(timer);
}
