import type { Command } from "commander";
import { withKafka } from "../kafka/kafka-target.ts";

/** Adds `cadre topics`. */
export function registerTopics(program: Command): void {
  const topics = program.command("topics").summary("compare Kafka's topics with the declared ones, and make them");
  const where = (command: Command): Command =>
    withKafka(command)
      .option("--file <path>", "the declared topics; those that come with Cadre unless said")
      .option("--replication <n>", "copies of each event, instead of the file's: 1 for a single broker");

  where(topics.command("plan", { isDefault: true }))
    .description("Shows what differs: topics, partitions, replication, retention, compaction. Changes nothing.")
    .action(async (flags) => {
      const { runTopicsPlan } = await import("../kafka/run-topics.ts");
      process.exitCode = await runTopicsPlan(flags);
    });

  where(topics.command("apply"))
    .description("Makes the topics that are missing, and sets what differs. Removes and repartitions nothing.")
    .addHelpText("after", "\nExample:\n  $ cadre topics apply --kafka-brokers 127.0.0.1:9092 --replication 1")
    .action(async (flags) => {
      const { runTopicsApply } = await import("../kafka/run-topics.ts");
      process.exitCode = await runTopicsApply(flags);
    });
}
