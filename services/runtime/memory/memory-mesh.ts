import { AppError } from "../errors/app-error.ts";
import { toConnectError } from "../errors/failure.ts";
import type { Mesh, ServiceName } from "../mesh/mesh.ts";
import { serveMethods } from "../rpc/invoke.ts";
import { defaultMessageLimits, type MessageLimits } from "../rpc/message-codec.ts";
import { Roster } from "../rpc/roster.ts";
import { createWireTransport } from "../rpc/wire-transport.ts";
import { memoryCodec } from "./memory-codec.ts";
import type { MemoryPeer } from "./memory-peer.ts";
import { createMemoryWire } from "./memory-wire.ts";

export interface MemoryMeshOptions {
  readonly limits?: MessageLimits;
}

/**
 * The mesh within one process: the same handlers and interceptors as between
 * processes, and the same promises. Messages are copied, with what encoding and
 * decoding them would have made of them.
 */
export function createMemoryMesh(options: MemoryMeshOptions = {}): Mesh {
  const limits = options.limits ?? defaultMessageLimits;
  const peers = new Map<ServiceName, MemoryPeer>();
  let open = true;
  return {
    transport: (peer, interceptors) =>
      createWireTransport(
        createMemoryWire(peer, () => (open ? peers.get(peer) : undefined)),
        interceptors,
        limits,
      ),
    async serve(name, { implementations, interceptors }) {
      if (peers.has(name)) throw new TypeError(`${name} serves already`);
      let onCallEnd = (): void => {};
      const peer: MemoryPeer = {
        methods: serveMethods(implementations, interceptors, memoryCodec, limits),
        running: new Roster(),
        onCallEnd: () => onCallEnd(),
      };
      peers.set(name, peer);
      let closed: Promise<void> | undefined;
      const drain = async (graceMs: number): Promise<void> => {
        if (peers.get(name) === peer) peers.delete(name);
        let timer: ReturnType<typeof setTimeout> | undefined;
        await new Promise<void>((resolve) => {
          onCallEnd = () => {
            if (peer.running.size === 0) resolve();
          };
          timer = setTimeout(() => {
            const failure = toConnectError(new AppError("SHUTTING_DOWN", "the service has stopped"), "");
            for (const call of peer.running) call.cut(failure);
          }, graceMs);
          onCallEnd();
        });
        clearTimeout(timer);
      };
      return {
        address: `memory:${name}`,
        close(graceMs) {
          closed ??= drain(graceMs);
          return closed;
        },
      };
    },
    async close() {
      open = false;
    },
  };
}
