import pino from "pino";
import type { GroupPosition, Place } from "../../services/runtime/bus/group-position.ts";
import { kafkaSettings } from "../../services/runtime/bus/kafka/kafka-settings.ts";
import { parseSettings } from "../../services/runtime/config/settings.ts";
import { openDatabase } from "../../services/runtime/postgres/open-database.ts";
import { openTarget, type TargetFlags } from "../database/open-target.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { askKafka, type KafkaFlags } from "../kafka/kafka-target.ts";
import { settingsOf } from "../server/flags.ts";

/** The flags that say which bus is meant, and where it is. */
export type BusFlags = KafkaFlags & TargetFlags;

/** The places of consumer groups on one bus. Throws CliError. */
export interface BusOffsets {
  list(topics: readonly string[], group: string | undefined): Promise<readonly GroupPosition[]>;
  /** Moves a group; its members must not run. */
  reset(group: string, topic: string, to: Place): Promise<void>;
}

/** The bus that is meant: Kafka where brokers are named, else the one in the database. */
export function busOffsetsOf(flags: BusFlags): BusOffsets {
  const { CADRE_KAFKA_BROKERS: brokers } = parseSettings(kafkaSettings, { ...process.env, ...settingsOf(flags) });
  return brokers.length > 0 ? inKafka(flags) : inPostgres(flags);
}

function inKafka(flags: KafkaFlags): BusOffsets {
  const offsets = () => import("../../services/runtime/bus/kafka/kafka-offsets.ts");
  return {
    list: async (topics, group) => {
      const { listPositions } = await offsets();
      return await askKafka(flags, (admin) => listPositions(admin, topics, group));
    },
    reset: async (group, topic, to) => {
      const { resetOffsets } = await offsets();
      await askKafka(flags, (admin, kafka) => resetOffsets(admin, kafka, group, topic, to));
    },
  };
}

function inPostgres(flags: TargetFlags): BusOffsets {
  const offsets = () => import("../../services/runtime/bus/postgres-offsets.ts");
  const log = pino({ enabled: false });
  type Engine = Parameters<Awaited<ReturnType<typeof offsets>>["listPositions"]>[0];

  async function ask<T>(question: (engine: Engine) => Promise<T>): Promise<T> {
    // Who runs there does no harm: a group with members is not moved.
    const target = await openTarget(flags, true, log);
    const database = openDatabase<Record<never, never>>({ url: target.url, service: "bus", log, maxConnections: 1 });
    try {
      return await question(database.engine);
    } finally {
      await database.close();
      await target.close();
    }
  }

  return {
    list: async (topics, group) => {
      const { listPositions } = await offsets();
      return await ask((engine) => listPositions(engine, topics, group));
    },
    reset: async (group, topic, to) => {
      const { resetOffsets } = await offsets();
      const moved = await ask((engine) => resetOffsets(engine, group, topic, to));
      if (moved === "unknown") {
        const remedy = "cadre events offsets list shows the groups that there are.";
        throw new CliError(exitCode.failed, `no group ${group} follows ${topic}`, remedy);
      }
      if (moved === "in use") {
        const remedy = "Stop them first: the servers whose handlers they are.";
        throw new CliError(exitCode.failed, `the group ${group} has members that run in ${topic}`, remedy);
      }
    },
  };
}
