import { Kafka, type KafkaConfig, logLevel, type SASLOptions } from "kafkajs";
import type { Logger } from "../../log/log.ts";
import type { KafkaConnection } from "./kafka-connection.ts";
import { calmKafkaTimers } from "./kafka-timers.ts";

const connectionTimeoutMs = 5_000;
/** A broker that has not answered a request by then is taken for dead. */
const requestTimeoutMs = 15_000;

/**
 * Makes a client of kafkajs. Each producer, consumer and admin gets one of its
 * own: consumers of one client share their notes about committed offsets.
 */
export function createKafkaClient({ brokers, tls, sasl }: KafkaConnection, log: Logger): Kafka {
  calmKafkaTimers();
  const config: KafkaConfig = {
    clientId: "cadre",
    brokers: [...brokers],
    connectionTimeout: connectionTimeoutMs,
    requestTimeout: requestTimeoutMs,
    // Few and fast: whoever uses it starts over with a new client, and says so.
    retry: { retries: 3, initialRetryTime: 100, maxRetryTime: 2_000 },
    logLevel: logLevel.WARN,
    // Everything that matters is thrown as well, and logged by who catches it.
    logCreator:
      () =>
      ({ namespace, log: { message } }) =>
        log.debug({ namespace, detail: message }, "kafkajs"),
  };
  if (tls !== undefined) {
    config.ssl = {
      ...(tls.authority === undefined ? {} : { ca: [tls.authority] }),
      ...(tls.certificate === undefined ? {} : { cert: tls.certificate, key: tls.key }),
    };
  }
  if (sasl !== undefined) config.sasl = { ...sasl } as SASLOptions;
  return new Kafka(config);
}
