import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { TestProject } from "vitest/node";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";
import type { Certificate } from "./kafka-certificates.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** The broker that the suites share, one suite at a time; each makes topics of its own there. */
    kafka: KafkaConnection;
    /** The same broker by TLS and SCRAM-SHA-512. */
    secureKafka: KafkaConnection;
    /** A client's certificate of its authority that has expired. */
    expiredClient: Certificate;
    /** Where the broker is ended and started from: see `kafka-control.ts`. */
    kafkaControl: string;
  }
}

/** Vitest's global setup: one broker for all suites. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const startedMs = performance.now();
  const broker = await startKafkaBroker();
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
  process.stderr.write(`Apache Kafka answers at ${broker.connection.brokers[0]} after ${seconds} s\n`);
  const control = await serveControl(broker);
  project.provide("kafka", broker.connection);
  project.provide("secureKafka", broker.secureConnection);
  project.provide("expiredClient", broker.access.expired);
  project.provide("kafkaControl", control.url);
  return async () => {
    control.server.close();
    await broker.stop();
  };
}

/** The broker is a child of this process, and the suites run in another. */
async function serveControl(broker: KafkaBroker): Promise<{ readonly server: Server; readonly url: string }> {
  const server = createServer((request, response) => {
    const done = request.url === "/crash" ? broker.crash() : broker.start();
    done.then(
      () => response.end(),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the control does not listen");
  return { server, url: `http://127.0.0.1:${address.port}` };
}
