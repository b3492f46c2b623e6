import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { SessionService } from "@cadre/gen/cadre/orchestrator/v1/session_pb";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createLog } from "../../services/runtime/log/create-log.ts";
import { startGatewayWorld } from "../../test/support/gateway-world.ts";

/** Who serves the call. */
export type Contestant = "ours" | "connect-node";

/** The handler of both. */
const handlers = {
  getSession: (request: { readonly sessionId: string }) => ({
    session: { sessionId: request.sessionId, title: "bench", labels: { a: "1" }, lastSeq: 42n },
  }),
};

/** Starts a contestant on a free port; returns its URL. */
export async function serve(contestant: Contestant): Promise<string> {
  if (contestant === "connect-node") {
    const server = createServer(connectNodeAdapter({ routes: ({ service }) => service(SessionService, handlers) }));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
  const { log } = createLog({ mode: "embedded", level: "info", dataDirectory: tmpdir(), name: "cadre-bench-gateway" });
  const { gateway } = await startGatewayWorld({ sessions: handlers, log });
  return gateway.url;
}
