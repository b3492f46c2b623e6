import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { freePorts } from "./free-ports.ts";
import { createKafkaAccess } from "./kafka-access.ts";
import { createKafkaNode, type KafkaNode } from "./kafka-node.ts";

/** A broker's place in a cluster, from 0. */
export type Place = 0 | 1 | 2;

/** Three brokers of Apache Kafka, each a controller as well, by TLS and a password. */
export interface KafkaCluster {
  readonly connection: KafkaConnection;
  /** Kills the broker at a place at once. */
  crash(place: Place): Promise<void>;
  /** Starts it again on its data. */
  start(place: Place): Promise<void>;
  /** Starts it again with nothing on its disk. */
  startEmpty(place: Place): Promise<void>;
  /** Starts another broker on its port: of a new node id, with nothing on its disk, and no controller. */
  startOther(place: Place): Promise<void>;
  /** Ends all of it and removes the data. */
  stop(): Promise<void>;
}

const places: readonly Place[] = [0, 1, 2];

/** Starts the cluster. Resolves when each of its brokers answers. */
export async function startKafkaCluster(): Promise<KafkaCluster> {
  const root = await mkdtemp(join(tmpdir(), "cadre kafka "));
  const access = await createKafkaAccess(root);
  const ports = await freePorts(6);
  const [secure, controllers] = [ports.slice(0, 3), ports.slice(3)];
  const clusterId = randomBytes(16).toString("base64url");
  const voters = controllers.map((port, place) => ({ nodeId: place + 1, port }));
  const create = (place: Place, nodeId: number): Promise<KafkaNode> =>
    createKafkaNode({
      clusterId,
      nodeId,
      directory: join(root, `node-${nodeId}`),
      ports: { secure: secure[place] ?? 0, ...(nodeId === place + 1 ? { controller: controllers[place] ?? 0 } : {}) },
      voters,
      access,
      copies: 3,
    });
  const nodes = new Map<Place, KafkaNode>();
  const replace = async (place: Place, nodeId: number): Promise<void> => {
    const node = await create(place, nodeId);
    nodes.set(place, node);
    await node.start();
  };
  await Promise.all(places.map((place) => replace(place, place + 1)));
  return {
    connection: { brokers: secure.map((port) => `127.0.0.1:${port}`), ...access.client },
    crash: async (place) => nodes.get(place)?.crash(),
    start: async (place) => nodes.get(place)?.start(),
    startEmpty: (place) => replace(place, place + 1),
    startOther: (place) => replace(place, place + 4),
    async stop() {
      await Promise.all([...nodes.values()].map((node) => node.crash()));
      await rm(root, { recursive: true, force: true });
    },
  };
}
