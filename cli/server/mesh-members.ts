import { randomInt } from "node:crypto";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { ensureDevCertificates } from "../../services/runtime/identity/dev-authority.ts";
import { type StartableService, serviceStarters } from "./start-service.ts";

/** One process of a mesh on one machine. */
export interface MeshMember {
  readonly service: StartableService;
  /** For its environment: its place, its peers' places, its certificate. */
  readonly settings: Readonly<Record<string, string>>;
}

export interface PlanMembersOptions {
  readonly dataDirectory: string;
  readonly databaseUrl: string;
  /** What all of them are told besides. */
  readonly settings: Readonly<Record<string, string>>;
  /**
   * The first gateway's ports; the second one has the ports after the admin
   * port. 0: free ones for both.
   */
  readonly ports: { readonly public: number; readonly admin: number };
}

const layout: readonly StartableService[] = [
  "credentials",
  "tools",
  "registry",
  "orchestrator",
  "orchestrator",
  "events",
  "gateway",
  "gateway",
];

/** Makes or renews the certificates of all members; call it at start and every few hours. */
export async function renewCertificates(dataDirectory: string): Promise<void> {
  const services = Object.keys(serviceStarters) as StartableService[];
  await ensureDevCertificates({ directory: meshDirectory(dataDirectory), services });
}

/**
 * Says what runs in each process: two orchestrators, two gateways, and one of
 * each of the others, on ports that stay theirs over restarts.
 */
export async function planMembers(options: PlanMembersOptions): Promise<readonly MeshMember[]> {
  const ports = await freePorts(layout.length + 4);
  const placed = layout.map((service, index) => ({ service, address: `127.0.0.1:${ports[index]}` }));
  const addressesOf = (name: StartableService): string =>
    placed
      .filter(({ service }) => service === name)
      .map(({ address }) => address)
      .join(",");
  const directory = meshDirectory(options.dataDirectory);
  const shared = {
    ...options.settings,
    CADRE_DATA: options.dataDirectory,
    CADRE_DATABASE_URL: options.databaseUrl,
    CADRE_MESH_CREDENTIALS: addressesOf("credentials"),
    CADRE_MESH_TOOLS: addressesOf("tools"),
    CADRE_MESH_REGISTRY: addressesOf("registry"),
    CADRE_MESH_ORCHESTRATOR: addressesOf("orchestrator"),
    CADRE_MESH_EVENTS: addressesOf("events"),
    CADRE_MESH_GATEWAY: addressesOf("gateway"),
    CADRE_MESH_CA_FILE: join(directory, "authority.pem"),
    CADRE_MESH_CERT_FILE: join(directory, "{service}.pem"),
    CADRE_MESH_KEY_FILE: join(directory, "{service}.key"),
  };
  let gateways = 0;
  return placed.map(({ service, address }) => {
    const settings: Record<string, string> = { ...shared, CADRE_MESH_LISTEN: address };
    if (service === "gateway") {
      const nth = gateways++;
      const free = ports.slice(layout.length + 2 * nth);
      const isFree = options.ports.public === 0;
      settings.CADRE_PORT = String(isFree ? free[0] : options.ports.public + 2 * nth);
      settings.CADRE_ADMIN_PORT = String(isFree ? free[1] : options.ports.admin + 2 * nth);
    }
    return { service, settings };
  });
}

function meshDirectory(dataDirectory: string): string {
  return join(dataDirectory, "mesh");
}

/**
 * Where ports are looked for: below those that systems give to outgoing
 * connections, one of which could take the port of a member while that is down.
 */
const portRange = { least: 10_000, most: 32_000 } as const;

/** Ports that are free now; all are held until all are found, so that none comes twice. */
async function freePorts(count: number): Promise<readonly number[]> {
  const held: Server[] = [];
  const ports: number[] = [];
  for (let tries = 0; ports.length < count; tries += 1) {
    if (tries === count + 1_000) throw new Error("no free ports on 127.0.0.1");
    const port = randomInt(portRange.least, portRange.most);
    const server = await listenOn(port);
    if (server === undefined) continue;
    held.push(server);
    ports.push(port);
  }
  await Promise.all(held.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  return ports;
}

/** Undefined if the port is taken. */
function listenOn(port: number): Promise<Server | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}
