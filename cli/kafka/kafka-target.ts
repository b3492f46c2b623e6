import { type Command, Option } from "commander";
import type { Admin, Kafka } from "kafkajs";
import pino from "pino";
import { createKafkaAdmin } from "../../services/runtime/bus/kafka/kafka-admin.ts";
import { createKafkaClient } from "../../services/runtime/bus/kafka/kafka-client.ts";
import type { KafkaConnection } from "../../services/runtime/bus/kafka/kafka-connection.ts";
import { KafkaProblem, type KafkaProblemKind } from "../../services/runtime/bus/kafka/kafka-problem.ts";
import {
  findKafkaProblems,
  kafkaSettings,
  readKafkaConnection,
} from "../../services/runtime/bus/kafka/kafka-settings.ts";
import { ConfigurationError, parseSettings } from "../../services/runtime/config/settings.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { flagOf } from "../server/configuration.ts";
import { settingsOf } from "../server/flags.ts";

/** The flags of every command that asks Kafka itself. */
export type KafkaFlags = Readonly<Record<string, unknown>> & { readonly json?: boolean };

/** Adds the settings of Kafka as flags, and `--json`. */
export function withKafka(command: Command): Command {
  for (const [name, { description }] of Object.entries(kafkaSettings)) {
    command.addOption(new Option(`${flagOf(name)} <value>`, description));
  }
  return command.option("--json", "print JSON");
}

/**
 * How the Kafka is reached that flags and environment name; the files that they
 * name are read each time.
 *
 * @throws ConfigurationError
 */
export function connectionOf(flags: KafkaFlags): () => Promise<KafkaConnection> {
  return async () => {
    const config = parseSettings(kafkaSettings, { ...process.env, ...settingsOf(flags) });
    const problems = findKafkaProblems(config);
    if (problems.length > 0) throw new ConfigurationError(problems);
    return readKafkaConnection(config);
  };
}

/** What a problem of Kafka's means for who called, and for the shell. */
export function toCliError({ kind, message, remedy }: KafkaProblem): CliError {
  return new CliError(exitCodes[kind], message, remedy);
}

/**
 * Asks the Kafka that flags and environment name.
 *
 * @throws CliError 78 configuration, 69 not reachable, 77 not allowed, 1 for the rest
 */
export async function askKafka<T>(flags: KafkaFlags, question: (admin: Admin, kafka: Kafka) => Promise<T>): Promise<T> {
  const log = pino({ enabled: false });
  const connection = connectionOf(flags);
  const admin = createKafkaAdmin(async () => createKafkaClient(await connection(), log), log);
  try {
    return await admin.ask(question);
  } catch (error) {
    if (!(error instanceof KafkaProblem)) throw error;
    throw toCliError(error);
  } finally {
    await admin.close();
  }
}

const exitCodes: Readonly<Record<KafkaProblemKind, ExitCode>> = {
  configuration: exitCode.configuration,
  not_yet: exitCode.failed,
  unreachable: exitCode.unreachable,
  certificate: exitCode.unreachable,
  authentication: exitCode.notAllowed,
  authorization: exitCode.notAllowed,
  missing_topic: exitCode.failed,
  other_partitions: exitCode.failed,
  too_large: exitCode.failed,
  failed: exitCode.failed,
};
