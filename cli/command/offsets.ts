import type { Command } from "commander";
import { withKafka } from "../kafka/kafka-target.ts";

/** Adds `offsets` to `cadre events`. */
export function registerOffsets(events: Command): void {
  const withBus = (command: Command): Command =>
    withKafka(command)
      .option(
        "--database-url <url>",
        "the PostgreSQL of a bus without Kafka; else CADRE_DATABASE_URL, or the embedded one",
      )
      .option("--data <directory>", "the data directory of the embedded one; else CADRE_DATA, or .cadre")
      .addHelpText("after", "\nThe bus is Kafka where brokers are named, else the one in the database.");
  const offsets = events.command("offsets").summary("show and move the places of consumer groups");

  withBus(offsets.command("list", { isDefault: true }))
    .description("Shows where each consumer group is in each partition, and how many events it has before it.")
    .option("--group <group>", "only this consumer group")
    .option("--topic <topic>", "only this topic")
    .action(async (flags) => {
      const { runOffsetsList } = await import("../events/run-offsets.ts");
      process.exitCode = await runOffsetsList(flags);
    });

  withBus(offsets.command("reset"))
    .description("Moves a consumer group in a topic. Its members must not run meanwhile.")
    .requiredOption("--group <group>", "the consumer group")
    .requiredOption("--topic <topic>", "the topic")
    .requiredOption("--to <place>", "earliest, latest, or a time such as 2026-11-21T08:00:00Z")
    .option("--yes", "do not ask")
    .action(async (flags) => {
      const { runOffsetsReset } = await import("../events/run-offsets.ts");
      process.exitCode = await runOffsetsReset(flags);
    });
}
