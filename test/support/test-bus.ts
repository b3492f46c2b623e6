import type { EventBus } from "../../services/runtime/bus/event-bus.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import type { Logger } from "../../services/runtime/log/log.ts";

/**
 * Opens the bus of a test's process; a dead member of a group is noticed within
 * seconds. Loads the driver of that one alone.
 *
 * @param url the PostgreSQL of the bus that needs no Kafka
 * @param kafka a `KafkaConnection` as JSON; the bus is in PostgreSQL unless given
 */
export async function openTestBus(url: string, kafka: string | undefined, log: Logger): Promise<EventBus> {
  if (kafka === undefined) {
    const { openPostgresEventBus } = await import("../../services/runtime/bus/postgres-event-bus.ts");
    return openPostgresEventBus({ url, log, leaseMs: 1_500 });
  }
  const { openKafkaEventBus } = await import("../../services/runtime/bus/kafka-event-bus.ts");
  const connection = JSON.parse(kafka) as KafkaConnection;
  return openKafkaEventBus({ connection: async () => connection, log, sessionMs: 6_000 });
}
