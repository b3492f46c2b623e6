import type { Meter, Tracer } from "@opentelemetry/api";
import type { Logger } from "../log/log.ts";
import type { Dependency } from "../platform/platform.ts";
import type { EventBus } from "./event-bus.ts";
import type { KafkaConfig } from "./kafka/kafka-settings.ts";

export interface OpenEventBusOptions {
  /** How Kafka is reached; the bus is in PostgreSQL if undefined. */
  readonly kafka: KafkaConfig | undefined;
  /** The PostgreSQL of the bus that needs no Kafka. */
  readonly databaseUrl: string;
  readonly log: Logger;
  readonly tracer?: Tracer;
  readonly meter?: Meter;
}

/** An opened bus. */
export interface OpenedEventBus {
  readonly bus: EventBus;
  /** What it needs besides PostgreSQL, for readiness. */
  readonly dependencies: readonly Dependency[];
}

/** Opens the bus that is configured; loads the driver of that one alone. */
export async function openEventBus(options: OpenEventBusOptions): Promise<OpenedEventBus> {
  const { kafka, databaseUrl: url, log, tracer, meter } = options;
  if (kafka === undefined) {
    const { openPostgresEventBus } = await import("./postgres-event-bus.ts");
    return { bus: await openPostgresEventBus({ url, log, tracer, meter }), dependencies: [] };
  }
  const { openKafkaEventBus } = await import("./kafka-event-bus.ts");
  const { readKafkaConnection } = await import("./kafka/kafka-settings.ts");
  const bus = openKafkaEventBus({ connection: () => readKafkaConnection(kafka), log, meter });
  return { bus, dependencies: [bus.dependency] };
}
