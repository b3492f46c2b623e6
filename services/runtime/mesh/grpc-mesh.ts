import { isIP } from "node:net";
import { Channel, credentials, ServerCredentials } from "@grpc/grpc-js";
import type { Logger } from "../log/log.ts";
import { defaultMessageLimits, type MessageLimits } from "../rpc/message-codec.ts";
import { createWireTransport } from "../rpc/wire-transport.ts";
import type { Mesh, ServiceName } from "./mesh.ts";
import { retry } from "./retry.ts";
import { type ConnectionOptions, defaultConnections, startGrpcServer } from "./server.ts";
import { channelCredentials, fixedTls, serverCredentials, type TlsMaterial, type TlsSource } from "./tls.ts";
import { createGrpcWire } from "./transport.ts";

export interface GrpcMeshOptions {
  /** The process's service, which peers see in the user agent. */
  readonly name: ServiceName;
  /** Where to serve, `host:port`; port 0 takes a free one. */
  readonly listen: string;
  /**
   * Where each peer is: IP addresses with ports, over which calls go round
   * robin, or one DNS name with a port, whose addresses are used likewise.
   */
  readonly addresses: Readonly<Partial<Record<ServiceName, readonly string[]>>>;
  /** Mutual TLS, by texts or by a source that may replace them. None: plaintext, for one machine. */
  readonly tls?: TlsMaterial | TlsSource;
  readonly limits?: MessageLimits;
  readonly connections?: Partial<ConnectionOptions>;
  readonly log: Logger;
}

/**
 * The mesh between processes: gRPC over HTTP/2 by grpc-js. Peers may come and
 * go in any order; a lost one is tried again after 100 ms, then less often, at
 * least every 2 s.
 *
 * @throws TypeError if a peer's addresses mix what cannot be balanced over
 */
export function createGrpcMesh(options: GrpcMeshOptions): Mesh {
  const { name, log } = options;
  const limits = options.limits ?? defaultMessageLimits;
  const connections = { ...defaultConnections, ...options.connections };
  const tls = options.tls === undefined || "current" in options.tls ? options.tls : fixedTls(options.tls);
  const targets = new Map(
    Object.entries(options.addresses).map(([peer, addresses]) => [peer, toTarget(peer, addresses)] as const),
  );
  const channels = new Map<ServiceName, Channel>();
  let closed = false;

  const channelTo = (peer: ServiceName): Channel => {
    if (closed) throw new TypeError("the mesh is closed");
    let channel = channels.get(peer);
    if (channel === undefined) {
      const target = targets.get(peer);
      if (target === undefined) throw new TypeError(`the mesh has no address of ${peer}`);
      const secrets = tls === undefined ? credentials.createInsecure() : channelCredentials(tls, peer);
      channel = new Channel(target, secrets, {
        // TLS wants a name that is no address; whose certificate it is, is checked by its URI.
        ...(tls === undefined ? {} : { "grpc.ssl_target_name_override": `${peer}.cadre.internal` }),
        "grpc.primary_user_agent": `cadre-${name}`,
        "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
        "grpc.service_config_disable_resolution": 1,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2_000,
        "grpc.dns_min_time_between_resolutions_ms": 5_000,
        "grpc.keepalive_time_ms": connections.pingMs,
        "grpc.keepalive_timeout_ms": connections.pingTimeoutMs,
        "grpc.keepalive_permit_without_calls": 0,
        // Ours is the limit that names a reason; beyond twice that, grpc-js stops reading.
        "grpc.max_receive_message_length": 2 * Math.max(limits.unaryMaxBytes, limits.streamMaxBytes),
        "grpc.max_send_message_length": -1,
        // What a call that has not reached its peer may hold of its requests; more waits for the peer.
        "grpc.per_rpc_retry_buffer_size": 64 * 1024,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.enable_channelz": 0,
      });
      channels.set(peer, channel);
    }
    return channel;
  };

  return {
    transport(peer, interceptors) {
      return createWireTransport(createGrpcWire(channelTo(peer)), [...interceptors, retry()], limits);
    },
    async serve(_service, served) {
      const secrets = tls === undefined ? undefined : serverCredentials(tls);
      const server = await startGrpcServer({
        ...served,
        listen: options.listen,
        credentials: secrets ?? ServerCredentials.createInsecure(),
        limits,
        connections,
        log,
      });
      return {
        address: server.address,
        async close(graceMs) {
          await server.close(graceMs);
          secrets?.close();
        },
      };
    },
    async close() {
      closed = true;
      for (const channel of channels.values()) channel.close();
      channels.clear();
    },
  };
}

/** The grpc-js target of a peer's addresses. */
function toTarget(peer: string, addresses: readonly string[]): string {
  const families = new Set(addresses.map((address) => isIP(hostOf(address))));
  const [family] = families;
  if (family === undefined) throw new TypeError(`${peer} has no address`);
  if (families.size > 1 || (family === 0 && addresses.length > 1)) {
    throw new TypeError(`the addresses of ${peer} must be all IPv4, all IPv6, or one DNS name`);
  }
  return family === 0 ? `dns:///${addresses[0]}` : `ipv${family}:${addresses.join(",")}`;
}

function hostOf(address: string): string {
  const host = address.slice(0, address.lastIndexOf(":"));
  return host.startsWith("[") ? host.slice(1, -1) : host;
}
