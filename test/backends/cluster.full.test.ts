import { setTimeout as delay } from "node:timers/promises";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Subscription } from "../../services/runtime/bus/event-bus.ts";
import { busTopics, conversationTurns } from "../../services/runtime/bus/topics.ts";
import { allWell } from "../support/bus-kills.ts";
import { type BusVerdict, type BusWorld, openBusWorld } from "../support/bus-world.ts";
import { consumeToEffects } from "../support/effect-consumer.ts";
import { reach, say, seededRandom } from "../support/fault-driver.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { openTestBus } from "../support/test-bus.ts";
import { type KafkaCluster, type Place, startKafkaCluster } from "./kafka-cluster.ts";
import { askKafka, makeTopics, removeTopics } from "./kafka-topics.ts";

// Three brokers, by TLS and a password, under a steady load.

const log = pino({ level: "silent" });
const topic = conversationTurns.name;
let cluster: KafkaCluster;

beforeAll(async () => {
  const startedMs = performance.now();
  cluster = await startKafkaCluster();
  say(`three brokers answer after ${Math.round((performance.now() - startedMs) / 1_000)} s`);
});
afterAll(() => cluster?.stop());

/** Accepts about 200 events a second while something happens; then waits for all that was accepted. */
async function underLoad(happen: (world: BusWorld) => Promise<void>): Promise<BusVerdict> {
  await makeTopics(cluster.connection, busTopics, 3);
  const database = await createTestDatabase();
  const world = await openBusWorld({ databaseUrl: database.url, kafka: cluster.connection, keys: 100 });
  try {
    await world.startRelay();
    let isOver = false;
    const load = async () => {
      while (!isOver) {
        await world.accept(10);
        await delay(50);
      }
    };
    const scenario = happen(world).finally(() => {
      isOver = true;
    });
    await Promise.all([scenario, load()]);
    const startedMs = performance.now();
    await world.drain();
    const verdict = await world.judge();
    if (verdict.lost > 0) say(world.errors());
    say(`${JSON.stringify(verdict)}, drained within ${Math.round(performance.now() - startedMs)} ms`);
    return verdict;
  } finally {
    await world.close();
    await database.drop();
    await removeTopics(
      cluster.connection,
      busTopics.map(({ name }) => name),
    );
  }
}

async function progress(world: BusWorld, count: number): Promise<void> {
  const before = await world.effects();
  const isReached = async () => (await world.effects()) >= before + count;
  await reach(`${count} more effects`, isReached, { timeoutMs: 60_000, everyMs: 200 });
}

/** Waits until every partition of the topic has so many copies that are up to date. */
async function inSync(copies: number): Promise<void> {
  const isReached = async () => {
    const { topics } = await askKafka(cluster.connection, (admin) => admin.fetchTopicMetadata({ topics: [topic] }));
    return topics.every(({ partitions }) => partitions.every(({ isr }) => isr.length >= copies));
  };
  await reach(`${copies} copies in sync`, isReached, { timeoutMs: 120_000, everyMs: 500 });
}

/** Where the broker is that leads the first partition. */
async function leadingPlace(): Promise<Place> {
  const { topics } = await askKafka(cluster.connection, (admin) => admin.fetchTopicMetadata({ topics: [topic] }));
  const leader = topics[0]?.partitions.find(({ partitionId }) => partitionId === 0)?.leader;
  return leader === 1 ? 0 : leader === 2 ? 1 : 2;
}

test("a broker that leads partitions is away for a minute: nothing accepted is lost, doubled or overtaken", async () => {
  const verdict = await underLoad(async (world) => {
    await world.startConsumer();
    await world.startConsumer();
    await progress(world, 500);
    const place = await leadingPlace();
    await cluster.crash(place);
    const before = await world.effects();
    await delay(60_000);
    expect(await world.effects()).toBeGreaterThan(before + 2_000);
    await cluster.start(place);
    await inSync(3);
    await progress(world, 500);
  });
  expect(verdict).toMatchObject(allWell);
  expect(verdict.longestMs).toBeLessThan(45_000);
});

test("ten consumers come and go: each key in order, each effect once", async () => {
  const random = seededRandom("storm");
  const bus = await openTestBus("", JSON.stringify(cluster.connection), log);
  const verdict = await underLoad(async (world) => {
    const members: (Subscription | undefined)[] = Array.from({ length: 10 });
    for (let change = 0; change < 40; change++) {
      const place = random.between(0, members.length - 1);
      const member = members[place];
      members[place] = member === undefined ? consumeToEffects(bus, world.database, log) : undefined;
      await member?.stop();
      await delay(random.between(100, 1_000));
    }
    say(`${await world.effects()} effects in the storm`);
    for (const member of members.slice(1)) await member?.stop();
    members[0] ??= consumeToEffects(bus, world.database, log);
    await progress(world, 500);
  });
  await bus.close();
  expect(verdict).toMatchObject(allWell);
});

test("a broker comes back with an empty disk, and another with another node id", async () => {
  const verdict = await underLoad(async (world) => {
    await world.startConsumer();
    await world.startConsumer();
    await progress(world, 500);
    await cluster.crash(1);
    await cluster.startEmpty(1);
    await inSync(3);
    await progress(world, 500);
    await cluster.crash(2);
    await cluster.startOther(2);
    const brokers = async () => (await askKafka(cluster.connection, (admin) => admin.describeCluster())).brokers;
    const isThere = async () => (await brokers()).some(({ nodeId }) => nodeId === 6);
    await reach("the broker 6", isThere, { timeoutMs: 60_000, everyMs: 500 });
    await inSync(2);
    await progress(world, 1_000);
  });
  expect(verdict).toMatchObject(allWell);
});
