import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { freePorts } from "./free-ports.ts";
import { createKafkaAccess, type KafkaAccess } from "./kafka-access.ts";
import { createKafkaNode } from "./kafka-node.ts";

/** A broker of Apache Kafka on free ports of 127.0.0.1, with a directory of its own. */
export interface KafkaBroker {
  readonly connection: KafkaConnection;
  /** The same broker, by TLS and a password. */
  readonly secureConnection: KafkaConnection;
  readonly access: KafkaAccess;
  /** Kills it at once, as a crash would. */
  crash(): Promise<void>;
  /** Starts it again after `crash`, on the same ports and data. Resolves when it answers. */
  start(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

/** Starts a broker that is its own controller. Resolves when it answers. */
export async function startKafkaBroker(): Promise<KafkaBroker> {
  const directory = await mkdtemp(join(tmpdir(), "cadre kafka "));
  const [plain = 0, secure = 0, controller = 0] = await freePorts(3);
  const access = await createKafkaAccess(directory);
  const node = await createKafkaNode({
    clusterId: randomBytes(16).toString("base64url"),
    nodeId: 1,
    directory,
    ports: { plain, secure, controller },
    voters: [{ nodeId: 1, port: controller }],
    access,
    copies: 1,
  });
  await node.start();
  return {
    connection: { brokers: [`127.0.0.1:${plain}`] },
    secureConnection: { brokers: [`127.0.0.1:${secure}`], ...access.client },
    access,
    crash: () => node.crash(),
    start: () => node.start(),
    async stop() {
      await node.crash();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
