import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A network between two processes that a test can break. */
export interface TcpProxy {
  /** Where it listens, `127.0.0.1:<port>`. */
  readonly address: string;
  /** How many connections were made through it. */
  readonly connections: number;
  /** From now on nothing passes, in either direction, and nobody is told. */
  blackHole(): void;
  /**
   * Forgets the connections that there are, as a network does that lost its way: neither side hears of it, also not
   * when the other one closes. New ones work.
   *
   * @param direction what still gets lost on them: what the client sends (`up`), what it is sent (`down`), or both
   */
  forget(direction: "up" | "down" | "both"): void;
  close(): Promise<void>;
}

/** Forwards connections to `target`, `host:port`. */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  const [host, port] = target.split(":");
  const sockets = new Set<Socket>();
  let lost = new Set<"up" | "down">();
  let connections = 0;
  let swallowing = false;
  const server = createServer((near) => {
    connections += 1;
    const mine = lost;
    const far = connect(Number(port), host);
    for (const [from, to, direction] of [
      [near, far, "up"],
      [far, near, "down"],
    ] as const) {
      sockets.add(from);
      from.on("data", (bytes) => {
        if (!swallowing && !mine.has(direction)) to.write(bytes);
      });
      const end = (): void => {
        sockets.delete(from);
        if (mine.size === 0) to.destroy();
      };
      from.on("error", end);
      from.on("close", end);
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
    forget(direction) {
      for (const one of direction === "both" ? (["up", "down"] as const) : [direction]) lost.add(one);
      lost = new Set();
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
