import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pino from "pino";
import { createKafkaClient } from "../../services/runtime/bus/kafka/kafka-client.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { kafkaClassPath, run } from "./kafka-distribution.ts";
import { type Certificate, createTestAuthority, type TestAuthority } from "./kafka-certificates.ts";

/** A broker of Apache Kafka on a free port of 127.0.0.1, with a directory of its own. */
export interface KafkaBroker {
  readonly connection: KafkaConnection;
  /** A client's certificate that has expired, where there is TLS. */
  readonly expired: Certificate | undefined;
  /** Kills it at once, as a crash would. */
  crash(): Promise<void>;
  /** Starts it again after `crash`, on the same port and data. Resolves when it answers. */
  start(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

export interface KafkaBrokerOptions {
  /** `scram`: TLS, and a password by SCRAM-SHA-512. */
  readonly security: "none" | "scram";
}

/** It starts in half the time, and takes less of two cores, if Java does not optimise for hours of work. */
const jvmOptions = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
const startTimeoutMs = 60_000;
const log = pino({ level: "silent" });

/** Starts a broker that is its own controller. Resolves when it answers. */
export async function startKafkaBroker(options: KafkaBrokerOptions): Promise<KafkaBroker> {
  const classPath = await kafkaClassPath();
  const directory = await mkdtemp(join(tmpdir(), "cadre kafka "));
  const [port, controllerPort] = await freePorts();
  const settings = join(directory, "server.properties");
  const access = options.security === "none" ? undefined : await makeAccess(directory);
  await writeFile(settings, propertiesOf(directory, port, controllerPort, access));
  await run("java", [
    ...[...jvmOptions, "-cp", classPath, "kafka.tools.StorageTool", "format", "-c", settings],
    `--cluster-id=${randomBytes(16).toString("base64url")}`,
    ...(access === undefined
      ? []
      : ["--add-scram", `SCRAM-SHA-512=[name=${access.username},password=${access.password}]`]),
  ]);

  const connection: KafkaConnection = {
    brokers: [`127.0.0.1:${port}`],
    ...(access === undefined
      ? {}
      : {
          tls: { authority: access.authority.certificate },
          sasl: { mechanism: "scram-sha-512", username: access.username, password: access.password },
        }),
  };
  let child: ChildProcess | undefined;

  async function start(): Promise<void> {
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

  async function crash(): Promise<void> {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }

  await start();
  return {
    connection,
    expired: access?.expired,
    crash,
    start,
    async stop() {
      await crash();
      await rm(directory, { recursive: true, force: true });
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

interface Access {
  readonly authority: TestAuthority;
  readonly expired: Certificate;
  readonly username: string;
  readonly password: string;
  /** Files of Kafka's: the key and the certificate in one, and the authority. */
  readonly keyStore: string;
  readonly trustStore: string;
}

async function makeAccess(directory: string): Promise<Access> {
  const authority = await createTestAuthority();
  const own = await authority.issue("kafka");
  const [keyStore, trustStore] = [join(directory, "broker.pem"), join(directory, "authority.pem")];
  await writeFile(keyStore, `${own.key}${own.certificate}`, { mode: 0o600 });
  await writeFile(trustStore, authority.certificate);
  const expired = await authority.issue("client", -60_000);
  return { authority, expired, username: "cadre", password: randomBytes(16).toString("hex"), keyStore, trustStore };
}

function propertiesOf(directory: string, port: number, controllerPort: number, access: Access | undefined): string {
  const listener = access === undefined ? "PLAINTEXT" : "SASL_SSL";
  const login = "org.apache.kafka.common.security.scram.ScramLoginModule";
  const properties: Record<string, string | number> = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.quorum.voters": `1@127.0.0.1:${controllerPort}`,
    listeners: `${listener}://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    "listener.security.protocol.map": `${listener}:${listener},CONTROLLER:PLAINTEXT`,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": listener,
    "log.dirs": join(directory, "data"),
    "auto.create.topics.enable": "false",
    // A broker that was killed comes back only when its former session has run out.
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
  };
  if (access !== undefined) {
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
      "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": `${login} required username="${access.username}" password="${access.password}";`,
    });
  }
  return Object.entries(properties)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

/** Two ports that nobody listens on now. */
async function freePorts(): Promise<readonly [number, number]> {
  const servers = [createServer(), createServer()] as const;
  const ports = await Promise.all(
    servers.map(async (server) => {
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      const address = server.address();
      return typeof address === "object" && address !== null ? address.port : 0;
    }),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return [ports[0] ?? 0, ports[1] ?? 0];
}
