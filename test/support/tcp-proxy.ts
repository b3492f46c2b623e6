import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A network between two processes that a test can break. */
export interface TcpProxy {
  /** Where it listens, `127.0.0.1:<port>`. */
  readonly address: string;
  /** How many connections were made through it. */
  readonly connections: number;
  /** From now on nothing passes, in either direction, and nobody is told. */
  blackHole(): void;
  close(): Promise<void>;
}

/** Forwards connections to `target`, `host:port`. */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  const [host, port] = target.split(":");
  const sockets = new Set<Socket>();
  let connections = 0;
  let swallowing = false;
  const server = createServer((near) => {
    connections += 1;
    const far = connect(Number(port), host);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("data", (bytes) => {
        if (!swallowing) to.write(bytes);
      });
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get connections() {
      return connections;
    },
    blackHole() {
      swallowing = true;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
