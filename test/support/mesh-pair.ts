import type { Interceptor, Transport } from "@connectrpc/connect";
import pino from "pino";
import { createMemoryMesh } from "../../services/runtime/memory/memory-mesh.ts";
import { createGrpcMesh, type GrpcMeshOptions } from "../../services/runtime/mesh/grpc-mesh.ts";
import type { Implementation } from "../../services/runtime/rpc/implementation.ts";

/** A log that writes nothing. */
export const silentLog = pino({ enabled: false });

/** A service `tools` and a transport of its peer `gateway` to it. */
export interface MeshPair {
  readonly transport: Transport;
  /** Where the service listens; `memory:tools` in memory. */
  readonly address: string;
  /** Ends the service alone, cutting what runs after `graceMs`. */
  closeServer(graceMs: number): Promise<void>;
  /** Ends both at once. */
  close(): Promise<void>;
}

export interface MeshPairOptions {
  readonly implementations: readonly Implementation[];
  readonly serverInterceptors?: readonly Interceptor[];
  readonly clientInterceptors?: readonly Interceptor[];
  readonly grpc?: Partial<GrpcMeshOptions>;
}

/** Starts a service and its peer on one plane of the mesh. */
export async function startMeshPair(plane: "grpc" | "memory", options: MeshPairOptions): Promise<MeshPair> {
  const { implementations, serverInterceptors = [], clientInterceptors = [] } = options;
  const serving = { implementations, interceptors: serverInterceptors };
  if (plane === "memory") {
    const mesh = createMemoryMesh();
    const server = await mesh.serve("tools", serving);
    return {
      transport: mesh.transport("tools", clientInterceptors),
      address: server.address,
      closeServer: (graceMs) => server.close(graceMs),
      async close() {
        await server.close(0);
        await mesh.close();
      },
    };
  }
  const common = { listen: "127.0.0.1:0", log: silentLog, ...options.grpc };
  const serverMesh = createGrpcMesh({ name: "tools", addresses: {}, ...common });
  const server = await serverMesh.serve("tools", serving);
  const clientMesh = createGrpcMesh({ name: "gateway", ...common, addresses: { tools: [server.address] } });
  return {
    transport: clientMesh.transport("tools", clientInterceptors),
    address: server.address,
    closeServer: (graceMs) => server.close(graceMs),
    async close() {
      await clientMesh.close();
      await server.close(0);
      await serverMesh.close();
    },
  };
}
