import {
  applyTopics,
  planTopics,
  type TopicDeclaration,
  type TopicDifference,
} from "../../services/runtime/bus/kafka/kafka-topics.ts";
import { type ExitCode, exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";
import { printJson, printNotice, printTable } from "../output.ts";
import { askKafka, type KafkaFlags } from "./kafka-target.ts";
import { ownTopicsFile, readTopicsFile } from "./topics-file.ts";

/** The flags of `cadre topics`. */
export type TopicsFlags = KafkaFlags & { readonly file?: string; readonly replication?: string };

/** `cadre topics plan`. Fails when Kafka is not as declared. */
export async function runTopicsPlan(flags: TopicsFlags): Promise<ExitCode> {
  const declared = await declaredBy(flags);
  const differences = await askKafka(flags, (admin) => planTopics(admin, declared));
  print(flags, differences, declared);
  return differences.length === 0 ? exitCode.done : exitCode.failed;
}

/** `cadre topics apply`. Fails when something is left that it does not change by itself. */
export async function runTopicsApply(flags: TopicsFlags): Promise<ExitCode> {
  const declared = await declaredBy(flags);
  const [before, left] = await askKafka(flags, async (admin) => {
    const differences = await planTopics(admin, declared);
    await applyTopics(admin, declared);
    return [differences, await planTopics(admin, declared)] as const;
  });
  if (flags.json !== true) {
    const changed = before.filter(({ isApplied }) => isApplied);
    for (const { topic, what, found, declared: to } of changed) printNotice(`${topic}: ${what} ${found} → ${to}`);
  }
  print(flags, left, declared);
  return left.length === 0 ? exitCode.done : exitCode.failed;
}

async function declaredBy({ file, replication }: TopicsFlags): Promise<readonly TopicDeclaration[]> {
  if (replication !== undefined && !/^([1-9]|1[0-5])$/.test(replication)) {
    throw new CliError(exitCode.usage, "--replication must be 1 to 15");
  }
  return readTopicsFile(file ?? ownTopicsFile, replication === undefined ? undefined : Number(replication));
}

function print(flags: TopicsFlags, differences: readonly TopicDifference[], all: readonly TopicDeclaration[]): void {
  if (flags.json === true) {
    return printJson({
      topics: all.map(({ name }) => name),
      differences: differences.map(({ topic, what, found, declared, isApplied }) => ({
        topic,
        what,
        found,
        declared,
        applied: isApplied,
      })),
    });
  }
  printTable(
    differences,
    [
      { title: "topic", cell: ({ topic }) => topic },
      { title: "what", cell: ({ what }) => what },
      { title: "is", cell: ({ found }) => found },
      { title: "declared", cell: ({ declared }) => declared },
      { title: "apply", cell: ({ isApplied }) => (isApplied ? "changes it" : "leaves it: yours to decide") },
    ],
    `All ${all.length} topics are as declared.`,
  );
}
