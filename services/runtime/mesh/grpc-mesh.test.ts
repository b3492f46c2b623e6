import { ErrorInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Behavior, InteropService } from "../../../test/support/gen/cadre/test/v1/interop_pb.js";
import { type HandlerWatch, interopHandlers } from "../../../test/support/interop-handlers.ts";
import { silentLog } from "../../../test/support/mesh-pair.ts";
import { until } from "../../../test/support/settled.ts";
import { startTcpProxy } from "../../../test/support/tcp-proxy.ts";
import { issueCertificate, makeAuthority } from "../identity/dev-certificate.ts";
import { type Implementation, implement } from "../rpc/implementation.ts";
import { createGrpcMesh, type GrpcMeshOptions } from "./grpc-mesh.ts";
import type { MeshServer, ServiceName } from "./mesh.ts";
import { peerIdentityKey } from "./peer-identity.ts";
import { fromStatus } from "./status.ts";
import type { TlsMaterial, TlsSource } from "./tls.ts";

// What the mesh does between processes, beside what holds on both planes.

type Overrides = Partial<GrpcMeshOptions>;

async function serve(watch: HandlerWatch = {}, overrides: Overrides = {}, peers: string[] = []): Promise<MeshServer> {
  const mesh = createGrpcMesh({ name: "tools", listen: "127.0.0.1:0", addresses: {}, log: silentLog, ...overrides });
  const server = await mesh.serve("tools", {
    implementations: [implement(InteropService, interopHandlers(watch)) as Implementation],
    interceptors: [
      (next) => (request) => {
        peers.push(request.contextValues.get(peerIdentityKey) ?? "nobody");
        return next(request);
      },
    ],
  });
  onTestFinished(() => server.close(0));
  return server;
}

function clientOf(addresses: readonly string[], overrides: Overrides = {}, peer: ServiceName = "tools") {
  const mesh = createGrpcMesh({
    name: "gateway",
    listen: "127.0.0.1:0",
    log: silentLog,
    ...overrides,
    addresses: { [peer]: addresses },
  });
  onTestFinished(() => mesh.close());
  return createClient(InteropService, mesh.transport(peer, []));
}

async function codeOf(call: Promise<unknown>): Promise<Code | undefined> {
  return call.then(
    () => undefined,
    (thrown: unknown) => ConnectError.from(thrown).code,
  );
}

async function hang(client: ReturnType<typeof clientOf>): Promise<void> {
  for await (const _ of client.serverStream({ behavior: Behavior.HANG, count: 1 }));
}

test("calls go round over several servers, and on over the rest when one is gone", async () => {
  const calls = [0, 0];
  const servers = await Promise.all(
    [0, 1].map((index) => serve({ onStart: () => (calls[index] = (calls[index] ?? 0) + 1) })),
  );
  const client = clientOf(servers.map(({ address }) => address));
  await until(async () => {
    await client.unary({});
    return calls.every((count) => count > 0);
  });
  calls.fill(0);
  for (let call = 0; call < 20; call++) await client.unary({});
  expect(calls).toEqual([10, 10]);
  await servers[0]?.close(0);
  calls.fill(0);
  for (let call = 0; call < 20; call++) await client.unary({});
  expect(calls[1]).toBeGreaterThanOrEqual(20);
});

test("a peer that is not there yet is unavailable at once, and reached soon after it came", async () => {
  const first = await serve();
  const { address } = first;
  await first.close(0);
  const client = clientOf([address]);
  const startedAt = performance.now();
  expect(await codeOf(client.clientStream((async function* () {})()))).toBe(Code.Unavailable);
  // Its deadline, of 30 seconds, is not waited for.
  expect(performance.now() - startedAt).toBeLessThan(15_000);
  await serve({}, { listen: address });
  await until(async () => (await codeOf(client.unary({}))) === undefined);
});

test("a peer that falls silent is noticed by an unanswered ping", async () => {
  const server = await serve();
  const proxy = await startTcpProxy(server.address);
  onTestFinished(() => proxy.close());
  const client = clientOf([proxy.address], { connections: { pingMs: 200, pingTimeoutMs: 200 } });
  await client.unary({});
  const code = codeOf(hang(client));
  proxy.blackHole();
  expect(await code).toBe(Code.Unavailable);
});

test("a server notices a silent caller likewise, and ends what runs for it", async () => {
  let aborted = false;
  const server = await serve({ onAbort: () => (aborted = true) }, { connections: { pingMs: 200, pingTimeoutMs: 200 } });
  const proxy = await startTcpProxy(server.address);
  onTestFinished(() => proxy.close());
  const client = clientOf([proxy.address]);
  const stream = client.serverStream({ behavior: Behavior.HANG, count: 1 })[Symbol.asyncIterator]();
  await stream.next();
  proxy.blackHole();
  await until(() => aborted);
});

test("an old connection is replaced without a failed call, and what hangs on it is cut after its grace", async () => {
  const server = await serve({}, { connections: { maxAgeMs: 300, maxAgeGraceMs: 300 } });
  const proxy = await startTcpProxy(server.address);
  onTestFinished(() => proxy.close());
  const client = clientOf([proxy.address]);
  const hanging = codeOf(hang(client));
  await until(async () => {
    await client.unary({});
    return proxy.connections >= 3;
  });
  expect(await hanging).toBe(Code.Unavailable);
});

test("bytes that are no message are the caller's fault, and told with a reason", async () => {
  const server = await serve();
  const client = new Client(server.address, credentials.createInsecure());
  onTestFinished(() => client.close());
  const same = (bytes: Buffer): Buffer => bytes;
  const error = await new Promise<ServiceError | null>((resolve) => {
    const path = `/${InteropService.typeName}/Unary`;
    client.makeUnaryRequest(path, same, same, Buffer.from([255, 255, 255]), new Metadata(), {}, resolve);
  });
  const failure = error === null ? undefined : fromStatus(error);
  expect(failure?.code).toBe(Code.InvalidArgument);
  expect(failure?.findDetails(ErrorInfoSchema)[0]?.reason).toBe("MALFORMED_MESSAGE");
});

test("a path that is not served is unimplemented", async () => {
  const server = await serve();
  const client = new Client(server.address, credentials.createInsecure());
  onTestFinished(() => client.close());
  const same = (bytes: Buffer): Buffer => bytes;
  const error = await new Promise<ServiceError | null>((resolve) => {
    client.makeUnaryRequest("/no.Service/Nothing", same, same, Buffer.alloc(0), new Metadata(), {}, resolve);
  });
  expect(error?.code).toBe(Code.Unimplemented);
});

test.each([
  { what: "none", addresses: [] },
  { what: "two names", addresses: ["a:1", "b:1"] },
  { what: "both families", addresses: ["127.0.0.1:1", "[::1]:1"] },
])("addresses that cannot be balanced over are refused: $what", ({ addresses }) => {
  expect(() => clientOf(addresses)).toThrowError(TypeError);
});

describe("mutual TLS", () => {
  const validity = { fromMs: Date.now() - 60_000, toMs: Date.now() + 3_600_000 };
  let issue: (service: ServiceName) => Promise<TlsMaterial>;
  let stranger: TlsMaterial;

  beforeAll(async () => {
    const issuer = async () => {
      const authority = await makeAuthority(validity);
      return async (service: ServiceName): Promise<TlsMaterial> => {
        const { certificate, key } = await issueCertificate(authority, service, `spiffe://cadre/${service}`, validity);
        return { authority: authority.certificate, certificate, privateKey: key };
      };
    };
    issue = await issuer();
    stranger = await (await issuer())("gateway");
  });

  test("the caller's service is known from its certificate", async () => {
    const peers: string[] = [];
    const server = await serve({}, { tls: await issue("tools") }, peers);
    const gateway = clientOf([server.address], { tls: await issue("gateway") });
    const orchestrator = clientOf([server.address], { tls: await issue("orchestrator") });
    for (const client of [gateway, orchestrator, gateway]) await client.unary({});
    expect(peers).toEqual(["gateway", "orchestrator", "gateway"]);
  });

  test("a caller with a certificate of another authority, or with none, is not let in", async () => {
    const peers: string[] = [];
    const tools = await issue("tools");
    const server = await serve({}, { tls: tools }, peers);
    const trusting = { ...stranger, authority: tools.authority };
    expect(await codeOf(clientOf([server.address], { tls: trusting }).unary({}, { timeoutMs: 15_000 }))).toBe(
      Code.Unavailable,
    );
    expect(await codeOf(clientOf([server.address]).unary({}, { timeoutMs: 15_000 }))).toBe(Code.Unavailable);
    expect(peers).toEqual([]);
  });

  test("a server with the certificate of another service is not talked to", async () => {
    const peers: string[] = [];
    const server = await serve({}, { tls: await issue("credentials") }, peers);
    const client = clientOf([server.address], { tls: await issue("gateway") });
    expect(await codeOf(client.unary({}, { timeoutMs: 15_000 }))).toBe(Code.Unavailable);
    expect(peers).toEqual([]);
  });

  test("certificates are replaced without a restart", async () => {
    const old = await issue("tools");
    const next = await (async () => {
      const authority = await makeAuthority(validity);
      return async (service: ServiceName): Promise<TlsMaterial> => {
        const { certificate, key } = await issueCertificate(authority, service, `spiffe://cadre/${service}`, validity);
        return { authority: authority.certificate, certificate, privateKey: key };
      };
    })();
    const served = replaceable(old);
    const calling = replaceable(await issue("gateway"));
    const server = await serve({}, { tls: served, connections: { maxAgeMs: 200, maxAgeGraceMs: 200 } });
    const client = clientOf([server.address], { tls: calling });
    await client.unary({});
    served.replace(await next("tools"));
    calling.replace(await next("gateway"));
    // The old authority is trusted by neither any more, so calls go through by the new certificates alone.
    await until(async () => (await codeOf(client.unary({}))) === undefined);
    expect(
      await codeOf(clientOf([server.address], { tls: await issue("gateway") }).unary({}, { timeoutMs: 15_000 })),
    ).toBe(Code.Unavailable);
    expect(await codeOf(clientOf([server.address], { tls: await next("gateway") }).unary({}))).toBeUndefined();
  });
});

function replaceable(first: TlsMaterial): TlsSource & { replace(material: TlsMaterial): void } {
  let material = first;
  const listeners = new Set<(material: TlsMaterial) => void>();
  return {
    current: () => material,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    replace(replacement) {
      material = replacement;
      for (const listener of listeners) listener(replacement);
    },
  };
}
