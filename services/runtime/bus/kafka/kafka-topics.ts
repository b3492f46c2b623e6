import { setTimeout as delay } from "node:timers/promises";
import type { Admin } from "kafkajs";
import { KafkaProblem, missingTopic, otherPartitions, toKafkaProblem } from "./kafka-problem.ts";

// Numbers of Kafka's protocol, as its AdminClient names them; kafkajs's own names do not reach an ES module.
/** ConfigResource.Type.TOPIC */
const topicResource = 2;
/** ConfigSource.DYNAMIC_TOPIC_CONFIG: set for this topic. */
const topicSource = 1;

/** A topic as it is to be. */
export interface TopicDeclaration {
  readonly name: string;
  readonly partitions: number;
  /** Brokers that keep a copy. */
  readonly replication: number;
  /** Kafka's own settings of the topic, for example `retention.ms`. */
  readonly settings: Readonly<Record<string, string>>;
}

/** Something about a topic that is not as declared. */
export interface TopicDifference {
  readonly topic: string;
  /** `topic` if it is not there, else `partitions`, `replication` or the name of a setting. */
  readonly what: string;
  readonly found: string;
  readonly declared: string;
  /** Whether `applyTopics` brings it about; if not, a person must decide. */
  readonly isApplied: boolean;
}

/** The first topic that Kafka lacks, or has with another number of partitions. */
export async function findTopicProblem(
  admin: Admin,
  partitionsOf: ReadonlyMap<string, number>,
): Promise<KafkaProblem | undefined> {
  const found = await readTopics(admin, [...partitionsOf.keys()]);
  for (const [name, declared] of partitionsOf) {
    const topic = found.get(name);
    if (topic === undefined) return missingTopic(name);
    if (topic.partitions !== declared) return otherPartitions(name, topic.partitions, declared);
  }
  return undefined;
}

/** What differs between Kafka's topics and the declared ones. Changes nothing; other topics are nobody's business. */
export async function planTopics(admin: Admin, declared: readonly TopicDeclaration[]): Promise<TopicDifference[]> {
  const found = await readTopics(
    admin,
    declared.map(({ name }) => name),
  );
  const settings = await readSettings(admin, [...found.keys()]);
  return declared.flatMap((declaration): TopicDifference[] => {
    const { name: topic, partitions, replication } = declaration;
    const present = found.get(topic);
    if (present === undefined) {
      return [{ topic, what: "topic", found: "missing", declared: `${partitions} partitions`, isApplied: true }];
    }
    const differences: TopicDifference[] = [];
    const compare = (what: string, is: string, shouldBe: string, isApplied: boolean): void => {
      if (is !== shouldBe) differences.push({ topic, what, found: is, declared: shouldBe, isApplied });
    };
    compare("partitions", String(present.partitions), String(partitions), false);
    compare("replication", String(present.replication), String(replication), false);
    for (const [name, value] of Object.entries(declaration.settings)) {
      compare(name, settings.get(topic)?.get(name)?.value ?? "", value, true);
    }
    return differences;
  });
}

/** Makes what is missing, and sets what differs. Leaves partitions and replication of topics that exist. Idempotent. */
export async function applyTopics(admin: Admin, declared: readonly TopicDeclaration[]): Promise<void> {
  const differences = (await planTopics(admin, declared)).filter(({ isApplied }) => isApplied);
  const missing = new Set(differences.filter(({ what }) => what === "topic").map(({ topic }) => topic));
  const changed = new Set(differences.map(({ topic }) => topic).filter((topic) => !missing.has(topic)));
  await createTopics(
    admin,
    declared.filter(({ name }) => missing.has(name)),
  );
  if (changed.size === 0) return;
  // Kafka forgets what a request does not name, so what others have set is named as well.
  const present = await readSettings(admin, [...changed]);
  await admin.alterConfigs({
    validateOnly: false,
    resources: declared
      .filter(({ name }) => changed.has(name))
      .map(({ name, settings }) => ({
        type: topicResource,
        name,
        configEntries: toEntries({ ...ownSettings(present.get(name)), ...settings }),
      })),
  });
}

const maxLeadersMs = 30_000;

/** Makes topics; those that are there stay. Resolves when each partition has a leader, which Kafka chooses later. */
export async function createTopics(admin: Admin, declared: readonly TopicDeclaration[]): Promise<void> {
  // An empty list would mean: all.
  if (declared.length === 0) return;
  await admin.createTopics({
    waitForLeaders: false,
    topics: declared.map(({ name, partitions, replication, settings }) => ({
      topic: name,
      numPartitions: partitions,
      replicationFactor: replication,
      configEntries: toEntries(settings),
    })),
  });
  const names = declared.map(({ name }) => name);
  const untilMs = performance.now() + maxLeadersMs;
  while (!(await haveLeaders(admin, names))) {
    if (performance.now() > untilMs) {
      throw new KafkaProblem("not_yet", "Kafka has chosen no leaders for new topics", "Look into the brokers' log.");
    }
    await delay(100);
  }
}

async function haveLeaders(admin: Admin, names: readonly string[]): Promise<boolean> {
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: [...names] });
    return topics.every(({ partitions }) => partitions.every(({ leader }) => leader >= 0));
  } catch (error) {
    // A broker that has not heard of them yet.
    if (["missing_topic", "not_yet"].includes(toKafkaProblem(error).kind)) return false;
    throw error;
  }
}

interface FoundTopic {
  readonly partitions: number;
  readonly replication: number;
}

interface FoundSetting {
  readonly value: string;
  /** Set for this topic; else it comes from the broker. */
  readonly isOwn: boolean;
}

async function readTopics(admin: Admin, names: readonly string[]): Promise<Map<string, FoundTopic>> {
  const known = new Set(await admin.listTopics());
  const present = names.filter((name) => known.has(name));
  // An empty list would mean: all.
  if (present.length === 0) return new Map();
  const { topics } = await admin.fetchTopicMetadata({ topics: present });
  return new Map(
    topics.map(({ name, partitions }) => [
      name,
      { partitions: partitions.length, replication: partitions[0]?.replicas.length ?? 0 },
    ]),
  );
}

async function readSettings(
  admin: Admin,
  names: readonly string[],
): Promise<Map<string, ReadonlyMap<string, FoundSetting>>> {
  if (names.length === 0) return new Map();
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: names.map((name) => ({ type: topicResource, name })),
  });
  return new Map(
    resources.map(({ resourceName, configEntries }) => [
      resourceName,
      new Map(
        configEntries.map(({ configName, configValue, configSource }) => [
          configName,
          { value: configValue, isOwn: configSource === topicSource },
        ]),
      ),
    ]),
  );
}

function ownSettings(settings: ReadonlyMap<string, FoundSetting> | undefined): Record<string, string> {
  const own = [...(settings ?? [])].filter(([, { isOwn }]) => isOwn);
  return Object.fromEntries(own.map(([name, { value }]) => [name, value]));
}

function toEntries(settings: Readonly<Record<string, string>>): { name: string; value: string }[] {
  return Object.entries(settings).map(([name, value]) => ({ name, value }));
}
