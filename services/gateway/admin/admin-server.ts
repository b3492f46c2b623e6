import { createServer, type RequestListener } from "node:http";
import { findPortHolder, PortInUseError } from "../../runtime/edge/port-in-use.ts";

export interface AdminServer {
  /** For example `http://127.0.0.1:8011`. */
  readonly address: string;
  /** Cuts what is open. Idempotent. */
  close(): Promise<void>;
}

const host = "127.0.0.1";

/**
 * Listens for the machine's own operator, on loopback whatever the settings.
 *
 * @param port 0 takes a free one
 * @throws PortInUseError naming who holds the port, where that can be known
 */
export async function startAdminServer(port: number, handler: RequestListener): Promise<AdminServer> {
  const server = createServer(
    { headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 5_000, connectionsCheckingInterval: 2_000 },
    handler,
  );
  server.maxConnections = 64;
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port }, () => {
        server.off("error", reject);
        resolve();
      });
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new PortInUseError(host, port, await findPortHolder(port), error);
  }
  const address = server.address();
  const bound = typeof address === "object" && address !== null ? address.port : port;
  let closing: Promise<void> | undefined;
  return {
    address: `http://${host}:${bound}`,
    close() {
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      return closing;
    },
  };
}
