import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import type { TopicDeclaration } from "../../services/runtime/bus/kafka/kafka-topics.ts";
import { busTopics } from "../../services/runtime/bus/topics.ts";
import { exitCode } from "../exit-code.ts";
import { CliError } from "../failure.ts";

/** The file that comes with Cadre. */
export const ownTopicsFile = join(import.meta.dirname, "../../deploy/kafka/topics.yaml");

const schema = z.strictObject({
  replication: z.int().min(1).max(15),
  min_insync_replicas: z.int().min(1).max(15),
  topics: z.array(
    z.strictObject({
      name: z.string(),
      partitions: z.int(),
      retention_days: z.number().positive(),
      cleanup: z.enum(["delete", "compact"]),
    }),
  ),
});

const dayMs = 86_400_000;

/**
 * Reads the declared topics.
 *
 * @param replication instead of the file's
 * @throws CliError 78 if it cannot be read, or disagrees with what the program publishes to
 */
export async function readTopicsFile(path: string, replication?: number): Promise<readonly TopicDeclaration[]> {
  const refuse = (why: string): CliError => new CliError(exitCode.configuration, `${path}: ${why}`);
  let content: unknown;
  try {
    content = parse(await readFile(path, "utf8"));
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error));
  }
  const parsed = schema.safeParse(content);
  if (!parsed.success) throw refuse(z.prettifyError(parsed.error));
  const problems = findDisagreements(parsed.data.topics);
  if (problems.length > 0) throw refuse(problems.join("; "));
  const copies = replication ?? parsed.data.replication;
  return parsed.data.topics.map(({ name, partitions, retention_days, cleanup }) => ({
    name,
    partitions,
    replication: copies,
    settings: {
      "cleanup.policy": cleanup,
      "retention.ms": String(Math.round(retention_days * dayMs)),
      "min.insync.replicas": String(Math.min(parsed.data.min_insync_replicas, copies)),
    },
  }));
}

function findDisagreements(found: readonly { readonly name: string; readonly partitions: number }[]): string[] {
  const declared = new Map(found.map(({ name, partitions }) => [name, partitions]));
  const known = new Set(busTopics.map(({ name }) => name));
  return [
    ...busTopics
      .filter(({ name }) => !declared.has(name))
      .map(({ name, partitions }) => `${name} with ${partitions} partitions is missing`),
    ...busTopics
      .filter(({ name, partitions }) => declared.has(name) && declared.get(name) !== partitions)
      .map(({ name, partitions }) => `${name} has ${partitions} partitions, not ${declared.get(name)}`),
    ...found.filter(({ name }) => !known.has(name)).map(({ name }) => `${name} is no topic of Cadre`),
  ];
}
