import type { TestProject } from "vitest/node";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import type { Certificate } from "./kafka-certificates.ts";
import { type KafkaBroker, startKafkaBroker } from "./kafka-broker.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** The broker that the suites share; each makes topics of its own there. */
    kafka: KafkaConnection;
    /** One with TLS and SCRAM-SHA-512. */
    secureKafka: KafkaConnection;
    /** A client's certificate of its authority that has expired. */
    expiredClient: Certificate;
  }
}

/** Vitest's global setup: two brokers for all suites. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const brokers: KafkaBroker[] = [];
  const stop = async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
  };
  try {
    for (const [name, security] of [
      ["kafka", "none"],
      ["secureKafka", "scram"],
    ] as const) {
      const startedMs = performance.now();
      const broker = await startKafkaBroker({ security });
      brokers.push(broker);
      project.provide(name, broker.connection);
      if (broker.expired !== undefined) project.provide("expiredClient", broker.expired);
      const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
      process.stderr.write(`Apache Kafka (${name}) answers at ${broker.connection.brokers[0]} after ${seconds} s\n`);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}
