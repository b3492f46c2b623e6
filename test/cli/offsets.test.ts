import { join } from "node:path";
import pino from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { EventBus } from "../../services/runtime/bus/event-bus.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { agentRuns } from "../../services/runtime/bus/topics.ts";
import { collect, numberedEvent } from "../support/event-bus-contract.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";

const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
const topic = agentRuns.name;
const events = Array.from({ length: 10 }, (_, number) => numberedEvent(topic, "one-key", number));
let database: TestDatabase;
let bus: EventBus;
beforeAll(async () => {
  database = await createTestDatabase();
  bus = await openPostgresEventBus({
    url: database.url,
    log: pino({ level: "silent" }),
    topics: [{ name: topic, partitions: 1 }],
  });
});
afterAll(async () => {
  await bus.close();
  await database.drop();
});

const offsets = (...args: readonly string[]) =>
  runProgram(process.execPath, [program, "events", "offsets", ...args, "--database-url", database.url]);

const reset = (to: string, name: string = "reader") =>
  offsets("reset", "--group", name, "--topic", topic, "--to", to, "--yes");

async function list(): Promise<readonly object[]> {
  const { stdout } = await offsets("list", "--json");
  return (JSON.parse(stdout) as { readonly offsets: readonly object[] }).offsets;
}

test("shows where a group of the bus in PostgreSQL is, and moves it once its members are gone", async () => {
  await bus.publish(events);
  const first = collect(bus, topic, "reader", events.length);
  await first.done;
  expect(await reset("earliest")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/has members that run[^]*Stop them first/),
  });
  await first.stop();
  const place = { group: "reader", topic, partition: 0, end_offset: "10" };
  expect(await list()).toEqual([{ ...place, next_offset: "10", lag: "0" }]);

  expect(await reset("earliest")).toMatchObject({ code: 0 });
  expect(await list()).toEqual([{ ...place, next_offset: "0", lag: "10" }]);
  const again = collect(bus, topic, "reader", events.length);
  await again.done;
  await again.stop();
  expect(again.events.map(({ headers }) => headers.number)).toEqual(first.events.map(({ headers }) => headers.number));

  expect(await reset("2020-01-01T00:00:00Z")).toMatchObject({ code: 0 });
  expect(await list()).toEqual([{ ...place, next_offset: "0", lag: "10" }]);
  expect(await reset(new Date(Date.now() + 60_000).toISOString())).toMatchObject({ code: 0 });
  expect(await list()).toEqual([{ ...place, next_offset: "10", lag: "0" }]);
}, 120_000);

test.each([
  ["a group that there is not", ["--group", "nobody", "--topic", topic, "--to", "latest"], 1, /no group nobody/],
  ["a topic that there is not", ["--group", "reader", "--topic", "none", "--to", "latest"], 2, /no topic[^]*There are/],
  ["a place that is none", ["--group", "reader", "--topic", topic, "--to", "yesterday"], 2, /no place[^]*earliest/],
])(
  "%s is refused with the remedy",
  async (_, flags, code, message) => {
    expect(await offsets("reset", ...flags, "--yes")).toMatchObject({ code, stderr: expect.stringMatching(message) });
  },
  30_000,
);
