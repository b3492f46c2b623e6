import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A TCP proxy that resets connections in the middle of what the server sends. */
export interface CuttingProxy {
  readonly url: string;
  /** How many connections it has cut. */
  readonly cuts: number;
  close(): Promise<void>;
}

/**
 * Starts a proxy before a server on 127.0.0.1.
 *
 * @param bytesUntilCut how many bytes of the next connection's answers pass until it is reset; `Infinity` for all
 */
export async function startCuttingProxy(port: number, bytesUntilCut: () => number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>();
  let cuts = 0;
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    let left = bytesUntilCut();
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      // A reset is what this proxy is for; "close" follows and ends the other side.
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.pipe(upstream);
    upstream.on("data", (chunk: Buffer) => {
      const passed = chunk.subarray(0, Math.min(left, chunk.length));
      left -= passed.length;
      const cut = left <= 0;
      if (cut) upstream.pause();
      client.write(passed, () => {
        if (!cut || client.destroyed) return;
        cuts += 1;
        client.resetAndDestroy();
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get cuts() {
      return cuts;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
