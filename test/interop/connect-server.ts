import { createServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { errors } from "../../services/runtime/interceptor/errors.ts";
import { createGrpcMesh } from "../../services/runtime/mesh/grpc-mesh.ts";
import { type Implementation, implement } from "../../services/runtime/rpc/implementation.ts";
import { requestContextKey } from "../../services/runtime/rpc/request-context.ts";
import { InteropService } from "../support/gen/cadre/test/v1/interop_pb.js";
import { type HandlerWatch, interopHandlers } from "../support/interop-handlers.ts";
import { silentLog } from "../support/mesh-pair.ts";
import type { InteropServer } from "./outcome.ts";

/** Our server of the mesh. */
export async function serveOurs(watch: HandlerWatch): Promise<InteropServer> {
  const mesh = createGrpcMesh({ name: "tools", listen: "127.0.0.1:0", addresses: {}, log: silentLog });
  const implementations = [implement(InteropService, interopHandlers(watch)) as Implementation];
  const server = await mesh.serve("tools", { implementations, interceptors: [] });
  return { address: server.address, close: () => server.close(0) };
}

/** The gRPC server of connect-node. */
export async function serveConnectNode(watch: HandlerWatch): Promise<InteropServer> {
  const server: Http2Server = createServer(
    connectNodeAdapter({
      routes: ({ service }) => service(InteropService, interopHandlers(watch)),
      connect: false,
      grpcWeb: false,
      interceptors: [
        (next) => (request) => {
          request.contextValues.set(requestContextKey, {
            requestId: "req",
            traceparent: "",
            source: "",
            deadline: Number.POSITIVE_INFINITY,
            signal: request.signal,
            principal: undefined,
            callingService: undefined,
            idempotencyKey: "",
          });
          return next(request);
        },
        errors(silentLog),
      ],
    }),
  );
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
