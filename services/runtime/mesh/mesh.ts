import type { Interceptor, Transport } from "@connectrpc/connect";
import type { Implementation } from "../rpc/implementation.ts";

/** A process of the mesh. */
export type ServiceName = "gateway" | "orchestrator" | "tools" | "registry" | "capsules" | "credentials" | "events";

/** What a service offers to its peers. */
export interface MeshServerOptions {
  readonly implementations: readonly Implementation[];
  /** Outermost first. */
  readonly interceptors: readonly Interceptor[];
}

/** A running server of the mesh. */
export interface MeshServer {
  /** Where peers reach it, for example `127.0.0.1:41233`, or `memory:tools`. */
  readonly address: string;
  /**
   * Stops accepting, lets the calls that run end for at most `graceMs`
   * milliseconds, then cuts the rest.
   */
  close(graceMs: number): Promise<void>;
}

/**
 * How services find and call each other: by gRPC between processes, in memory
 * within one. Handlers and interceptors are the same on both.
 */
export interface Mesh {
  /**
   * A transport to a peer, which need not run yet: a call to an absent peer
   * fails with `UNAVAILABLE`. The interceptors are the client's, outermost
   * first.
   */
  transport(peer: ServiceName, interceptors: readonly Interceptor[]): Transport;
  /** Serves a service to its peers. */
  serve(name: ServiceName, options: MeshServerOptions): Promise<MeshServer>;
  /** Closes all transports. */
  close(): Promise<void>;
}
