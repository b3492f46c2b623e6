import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pino from "pino";
import { createKafkaClient } from "../../services/runtime/bus/kafka/kafka-client.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { jvmOptions, run } from "./downloads.ts";
import type { KafkaAccess } from "./kafka-access.ts";
import { kafkaClassPath } from "./kafka-distribution.ts";

export interface KafkaNodeOptions {
  readonly clusterId: string;
  readonly nodeId: number;
  /** Where its settings and its data are. */
  readonly directory: string;
  /** On 127.0.0.1. Without `controller` it is a broker only. */
  readonly ports: { readonly plain?: number; readonly secure?: number; readonly controller?: number };
  /** The port that clients are told instead of the plain one: of a proxy before it. */
  readonly advertisedPort?: number;
  /** The controllers of the cluster: node id and port. */
  readonly voters: readonly { readonly nodeId: number; readonly port: number }[];
  /** Needed for a secure port. */
  readonly access?: KafkaAccess;
  /** How many brokers keep a copy of Kafka's own topics. */
  readonly copies: number;
}

/** A process of Apache Kafka. */
export interface KafkaNode {
  /** Starts it unless it runs, also again after `crash`, on the same ports and data. Resolves when it answers. */
  start(): Promise<void>;
  /** Kills it at once, as a crash would. */
  crash(): Promise<void>;
}

const startTimeoutMs = 240_000;
const log = pino({ level: "silent" });

/** Prepares a node's data directory, which must be empty. */
export async function createKafkaNode(options: KafkaNodeOptions): Promise<KafkaNode> {
  const { clusterId, directory, access, ports } = options;
  const classPath = await kafkaClassPath();
  const settings = join(directory, "server.properties");
  await mkdir(directory, { recursive: true });
  await rm(join(directory, "data"), { recursive: true, force: true });
  await writeFile(settings, propertiesOf(options));
  const { username, password } = access?.client.sasl ?? {};
  await run("java", [
    ...[...jvmOptions, "-cp", classPath, "kafka.tools.StorageTool", "format", "-c", settings],
    ...["--cluster-id", clusterId],
    // What the first controller begins with.
    ...(access === undefined || ports.controller === undefined
      ? []
      : ["--add-scram", `SCRAM-SHA-512=[name=${username},password=${password}]`]),
  ]);
  const connection: KafkaConnection =
    ports.plain === undefined
      ? { brokers: [`127.0.0.1:${ports.secure}`], ...access?.client }
      : { brokers: [`127.0.0.1:${ports.plain}`] };
  let child: ChildProcess | undefined;

  const isRunning = () => child !== undefined && child.exitCode === null && child.signalCode === null;

  async function start(): Promise<void> {
    if (isRunning()) return;
    const started = spawn("java", [...jvmOptions, "-cp", classPath, "kafka.Kafka", settings], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    child = started;
    // A test runner that is told to end takes its brokers along.
    const kill = () => started.kill("SIGKILL");
    process.once("exit", kill);
    started.once("exit", () => process.off("exit", kill));
    let output = "";
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-8 * 1024);
      });
    }
    const untilMs = performance.now() + startTimeoutMs;
    while (!(await answers(connection))) {
      if (started.exitCode !== null) throw new Error(`the broker ended with ${started.exitCode}: ${output}`);
      if (performance.now() > untilMs) throw new Error(`the broker does not answer: ${output}`);
      await delay(100);
    }
  }

  return {
    start,
    async crash() {
      if (child === undefined || !isRunning()) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Whether it lists its topics. */
async function answers(connection: KafkaConnection): Promise<boolean> {
  const admin = createKafkaClient(connection, log).admin({ retry: { retries: 0 } });
  try {
    await admin.connect();
    await admin.listTopics();
    return true;
  } catch {
    return false; // it starts; if it never answers, what it wrote is told
  } finally {
    await admin.disconnect();
  }
}

function propertiesOf(options: KafkaNodeOptions): string {
  const { nodeId, directory, ports, advertisedPort, voters, access, copies } = options;
  const login = "org.apache.kafka.common.security.scram.ScramLoginModule";
  const { plain, secure, controller } = ports;
  const listeners = [
    ...(plain === undefined ? [] : [["PLAINTEXT", plain] as const]),
    ...(secure === undefined ? [] : [["SASL_SSL", secure] as const]),
  ];
  const properties: Record<string, string | number> = {
    "process.roles": controller === undefined ? "broker" : "broker,controller",
    "node.id": nodeId,
    "controller.quorum.voters": voters.map((voter) => `${voter.nodeId}@127.0.0.1:${voter.port}`).join(","),
    listeners: [...listeners, ...(controller === undefined ? [] : [["CONTROLLER", controller] as const])]
      .map(([name, port]) => `${name}://127.0.0.1:${port}`)
      .join(","),
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": listeners[0]?.[0] ?? "",
    "log.dirs": join(directory, "data"),
    "auto.create.topics.enable": "false",
    // A broker that was killed comes back only when its former session has run out.
    "broker.session.timeout.ms": copies === 1 ? 1_000 : 6_000,
    "broker.heartbeat.interval.ms": copies === 1 ? 200 : 500,
    "offsets.topic.replication.factor": copies,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": copies,
    "transaction.state.log.min.isr": Math.ceil(copies / 2),
    "transaction.state.log.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
  };
  if (advertisedPort !== undefined) properties["advertised.listeners"] = `PLAINTEXT://127.0.0.1:${advertisedPort}`;
  if (access !== undefined) {
    const { username, password } = access.client.sasl;
    Object.assign(properties, {
      "ssl.keystore.type": "PEM",
      "ssl.keystore.location": access.keyStore,
      "ssl.truststore.type": "PEM",
      "ssl.truststore.location": access.trustStore,
      // Asked for, so that a wrong one is refused; whoever shows none has a password. (Without the listener's name,
      // Kafka ignores it where there are passwords.)
      "listener.name.sasl_ssl.ssl.client.auth": "requested",
      "sasl.enabled.mechanisms": "SCRAM-SHA-512",
      "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
      "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": `${login} required username="${username}" password="${password}";`,
    });
  }
  return Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}
