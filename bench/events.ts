import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { TurnChange, type TurnChanged, TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import pino from "pino";
import { createEventCodec } from "../services/runtime/bus/envelope.ts";
import type { BusEvent } from "../services/runtime/bus/event-bus.ts";
import { openKafkaEventBus } from "../services/runtime/bus/kafka-event-bus.ts";
import { openPostgresEventBus } from "../services/runtime/bus/postgres-event-bus.ts";
import { createLocalSchemaIds } from "../services/runtime/bus/schema-ids.ts";
import { conversationTurns } from "../services/runtime/bus/topics.ts";
import { newId } from "../services/runtime/ids/id.ts";
import { startEmbeddedPostgres } from "../services/runtime/postgres/embedded-server.ts";
import { startKafkaBroker } from "../test/backends/kafka-broker.ts";
import { makeTopics } from "../test/backends/kafka-topics.ts";
import { cadre } from "./events/cadre.ts";
import { compareCodecs } from "./events/codec.ts";
import type { Contestant } from "./events/contestant.ts";
import { bareKafkajs } from "./events/kafkajs.ts";
import { measureLag } from "./events/lag.ts";
import { createOutbox } from "./events/outbox.ts";
import { barePlatformatic } from "./events/platformatic.ts";
import { type Comparison, formatFigure, median, printReport } from "./report.ts";

// Events from an outbox to a handler: by Cadre's relay and bus through one real
// broker of Kafka, beside kafkajs that produces and consumes the same bytes in
// the same batches; by the bus in PostgreSQL; and @platformatic/kafka, the client
// that could stand in kafkajs's place. One after the other, in turns. Then the
// codec, beside Confluent's for JavaScript.
//
//   npm run bench:events                 20,000 events a round, three rounds, a minute of lag
//   npm run bench:events -- --quick      the same with 5,000 events, and ten seconds
//   npm run bench:events -- --codec      the codec alone, which needs neither broker nor database

const isQuick = process.argv.includes("--quick");
const eventsInRound = isQuick ? 5_000 : 20_000;
const rounds = 3;
const sessions = 200;
const steadyRate = 2_000;
const steadySeconds = isQuick ? 10 : 60;
const orgId = newId("org");
const log = pino({ level: "warn" });
const topic = { name: conversationTurns.name, partitions: conversationTurns.partitions };
const bareTopics = ["kafkajs", "platformatic"].map((name) => ({ name, partitions: topic.partitions }));

async function main(): Promise<void> {
  const dataDirectory = await mkdtemp(join(tmpdir(), "cadre-bench-events-"));
  const postgres = await startEmbeddedPostgres({ dataDirectory, log });
  const broker = await startKafkaBroker();
  const contestants: Contestant[] = [];
  try {
    await makeTopics(broker.connection, [topic, ...bareTopics]);
    const [forKafka, forPostgres] = [
      await createOutbox(postgres.url, "kafka"),
      await createOutbox(postgres.url, "postgres"),
    ];
    const kafkaBus = openKafkaEventBus({ connection: async () => broker.connection, log, topics: [topic] });
    const postgresBus = await openPostgresEventBus({ url: postgres.url, log, topics: [topic] });
    const ours = cadre("cadre on kafka", kafkaBus, forKafka);
    const bare = await bareKafkajs(broker.connection.brokers, "kafkajs");
    const beside = cadre("cadre on postgres", postgresBus, forPostgres);
    const other = await barePlatformatic(broker.connection.brokers, "platformatic");
    contestants.push(ours, bare, beside, other);

    const rates = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
    const events = await makeEvents(eventsInRound);
    for (const contestant of contestants) await measure(contestant, events); // warm
    for (let round = 0; round < rounds; round++) {
      for (const contestant of contestants) {
        const rate = await measure(contestant, events);
        rates.get(contestant.name)?.push(rate);
        process.stderr.write(`${contestant.name}: ${formatFigure(rate)} events/s\n`);
      }
    }
    const lag = await measureLag(ours, { rate: steadyRate, seconds: steadySeconds, makeEvents });
    process.stderr.write(
      `at ${formatFigure(lag.rate)} events/s: p50 ${formatFigure(lag.p50Ms)} ms, p99 ${formatFigure(lag.p99Ms)} ms, longest ${formatFigure(lag.maxMs)} ms from outbox to handler\n`,
    );

    const codecs = await compareCodecs(orgId, makeFacts(eventsInRound));
    const rateOf = (name: string): number => median(rates.get(name) ?? []);
    const comparison = (name: string, target: string): Comparison => ({
      bench: "events",
      what: `${name}, outbox to handler, events/s`,
      ours: rateOf(name),
      peer: "kafkajs 2.2.4 produce and consume",
      theirs: rateOf(bare.name),
      target,
    });
    printReport([
      comparison(ours.name, ">= 0.6"),
      comparison(beside.name, "none: another kind of thing"),
      {
        bench: "events",
        what: "the driver's client by itself, kafkajs, events/s",
        ours: rateOf(bare.name),
        peer: "@platformatic/kafka 2.12.1",
        theirs: rateOf(other.name),
        target: "none: whether to change the client",
      },
      {
        bench: "events",
        what: `longest way at ${steadyRate} events/s, ms`,
        ours: lag.maxMs,
        peer: "required, ms",
        theirs: 1_000,
        target: "<= 1",
      },
      ...codecs,
    ]);
  } finally {
    for (const contestant of contestants) await contestant.close();
    await broker.stop();
    await postgres.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  }
}

/** Events a second, from the first one sent to the last one handled. */
async function measure(contestant: Contestant, events: readonly BusEvent[]): Promise<number> {
  await contestant.prepare(events);
  const startedMs = performance.now();
  await contestant.run();
  return events.length / ((performance.now() - startedMs) / 1_000);
}

/** Facts of turns, as the orchestrator states them. */
function makeFacts(count: number): readonly TurnChanged[] {
  const ids = Array.from({ length: sessions }, () => newId("ses"));
  return Array.from({ length: count }, (_, index) =>
    create(TurnChangedSchema, {
      metadata: {
        eventId: newId("evt"),
        seq: BigInt(Math.floor(index / sessions) + 1),
        at: timestampNow(),
        orgId,
        requestId: newId("req"),
      },
      sessionId: ids[index % sessions] ?? "",
      turnId: newId("run"),
      change: TurnChange.STARTED,
    }),
  );
}

async function makeEvents(count: number): Promise<readonly BusEvent[]> {
  const codec = createEventCodec(createLocalSchemaIds());
  const events: BusEvent[] = [];
  for (const fact of makeFacts(count)) events.push(await codec.encode(conversationTurns, fact, { orgId }));
  return events;
}

if (process.argv.includes("--codec")) printReport(await compareCodecs(orgId, makeFacts(eventsInRound)));
else await main();
