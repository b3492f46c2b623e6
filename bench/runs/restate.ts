import { rm } from "node:fs/promises";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Contestant } from "./contestant.ts";
import { directorySize } from "./directory-size.ts";
import { jsonRequest } from "./json-request.ts";
import { peerFile, peerVersion } from "./peer-packages.ts";
import { newDirectory } from "./scratch.ts";
import { startApplication, startProgram } from "./started-child.ts";

// Restate's server, one node, and a Node process with the service that it
// calls over HTTP/2. The server journals each step: the service is told of a
// step's result only when the log has it, which the log server syncs.

const startWithinMs = 60_000;

/** Everything else is as it comes, the replicated log and its sync of each batch among it. */
const configuration = {
  // One node of two cores: 1 partition was quicker than 2, 4, 8 or the default of 24 at 50 runs at once, and no slower alone.
  RESTATE_DEFAULT_NUM_PARTITIONS: "1",
  // What comes by itself, said aloud: without it nothing would be on the disk before the next step.
  RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC: "false",
  RESTATE_LOG_FILTER: "error,octocrab=off",
  RESTATE_LISTEN_MODE: "tcp",
  RESTATE_BIND_IP: "127.0.0.1",
  RESTATE_ADVERTISED_HOST: "127.0.0.1",
  DO_NOT_TRACK: "1",
} as const;

export const restate: Contestant = {
  get name() {
    return `restate ${peerVersion("@restatedev/restate-server")}`;
  },
  get settings() {
    return [
      `@restatedev/restate-server ${peerVersion("@restatedev/restate-server")}, @restatedev/restate-sdk ${peerVersion("@restatedev/restate-sdk")}; one node, a service handler with \`ctx.run\` for each step, HTTP/2 between them`,
      "1 partition: on two cores quicker at 50 at once than 2, 4, 8 or the default of 24",
      "replicated log (the default; the local one was no quicker) with `rocksdb-disable-wal-fsync = false` (the default): each batch is synced before it is acknowledged",
    ];
  },
  async start() {
    await using scope = new AsyncDisposableStack();
    const directory = await newDirectory("restate");
    scope.defer(() => rm(directory, { recursive: true }));
    const [ingress, admin, node] = await freePorts(3);
    const program = `@restatedev/restate-server-${process.platform}-${process.arch}/bin/restate-server`;
    const server = startProgram(peerFile(`node_modules/${program}`), ["--no-logo"], {
      ...configuration,
      RESTATE_BASE_DIR: directory,
      RESTATE_INGRESS__BIND_PORT: `${ingress}`,
      RESTATE_ADMIN__BIND_PORT: `${admin}`,
      RESTATE_BIND_PORT: `${node}`,
    });
    scope.defer(() => server.stop());
    const application = await startApplication(peerFile("restate-app.mjs"));
    scope.defer(() => application.stop());
    const request = jsonRequest(`http://127.0.0.1:${ingress}`, "/runs/run");
    const uri = `http://127.0.0.1:${application.port}`;
    await untilAccepted(`http://127.0.0.1:${admin}/deployments`, JSON.stringify({ uri }));
    await untilAccepted(`${request.origin}${request.path}`, JSON.stringify({ text: "hello" }));
    const running = scope.move();
    return {
      request,
      pids: () => [server.pid, application.pid],
      diskUse: async () => ({ dataBytes: await directorySize(directory), logBytes: undefined }),
      stop: () => running.disposeAsync(),
    };
  },
};

/** Posts until it is accepted: the server opens its ports one after the other, and then chooses leaders. */
async function untilAccepted(url: string, body: string): Promise<void> {
  const deadline = performance.now() + startWithinMs;
  for (;;) {
    const headers = { "content-type": "application/json" };
    const signal = AbortSignal.timeout(startWithinMs);
    const outcome = await fetch(url, { method: "POST", headers, body, signal }).then(
      async (response) => (response.ok ? undefined : `HTTP ${response.status} ${await response.text()}`),
      (error: unknown) => String(error),
    );
    if (outcome === undefined) return;
    if (performance.now() > deadline) throw new Error(`Restate does not accept a request to ${url}: ${outcome}`);
    await delay(50);
  }
}

/** Ports that nobody listens on at the moment. */
async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => {
            const address = server.address();
            resolve(typeof address === "object" && address !== null ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
