import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** Somebody who wants to connect to PostgreSQL. */
export interface PostgresKnock {
  readonly atMs: number;
  /** Its `application_name`: `cadre <service> <pid>`. */
  readonly name: string;
}

/** A way to PostgreSQL that notes who wants in, whether somebody opens or not. */
export interface PostgresDoor {
  /** The server's URL, through the door. */
  readonly url: string;
  readonly knocks: readonly PostgresKnock[];
  close(): Promise<void>;
}

/** Opens a door before the server at `url`. While that is down, connections are closed once they have said who they are. */
export async function openPostgresDoor(url: string): Promise<PostgresDoor> {
  const target = new URL(url);
  const sockets = new Set<Socket>();
  const knocks: PostgresKnock[] = [];
  const server = createServer((near) => {
    sockets.add(near);
    near.on("error", () => undefined); // "close" follows
    near.on("close", () => sockets.delete(near));
    near.once("data", (startup) => {
      knocks.push({ atMs: Date.now(), name: applicationOf(startup) });
      const far = connect(Number(target.port), target.hostname);
      sockets.add(far);
      far.on("error", () => undefined);
      far.on("close", () => {
        sockets.delete(far);
        near.destroy();
      });
      near.on("close", () => far.destroy());
      far.write(startup);
      near.pipe(far).pipe(near);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const through = new URL(url);
  through.port = String((server.address() as AddressInfo).port);
  return {
    url: through.href,
    knocks,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** From a StartupMessage: length, version, then names and values, each ended by a zero. */
function applicationOf(startup: Buffer): string {
  const texts = startup.subarray(8).toString("utf8").split("\0");
  return texts[texts.indexOf("application_name") + 1] ?? "";
}
