import { fromJson } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { RunState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { CatchUp, Overlap } from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FakeTools } from "../../../test/support/fake-tools.ts";
import {
  migrateOrchestrator,
  reasonOf,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import { scheduleChannel } from "../store/schedule-store.ts";

const principal = testPrincipal();
let server: TestDatabase;
let cadre: TestOrchestrator;
let superuser: pg.Client;

beforeAll(async () => {
  server = await createTestDatabase();
  await migrateOrchestrator(server.url);
  const tools = new FakeTools().add("echo", ({ arguments: args }) => ({ text: args.text ?? null }));
  cadre = await startTestOrchestrator({ databaseUrl: server.url, tools, previousWritersAreDead: true }, principal);
  superuser = new pg.Client(server.url);
  await superuser.connect();
  await superuser.query("set search_path = orchestrator");
});
afterAll(async () => {
  await superuser.end();
  await cadre.stop();
  await server.drop();
});

const echo = fromJson(GraphSchema, {
  name: "echo",
  steps: [{ name: "a", tool: { tool: "echo", arguments: { text: "x" } } }],
});
const waiting = fromJson(GraphSchema, { name: "waiting", steps: [{ name: "go", signal: { signal: "go" } }] });

async function put(name: string, graph = echo, overlap = Overlap.UNSPECIFIED, cron = "0 0 1 1 *") {
  const run = { definition: { case: "graph" as const, value: graph }, labels: { by: name } };
  const definition = { name, cron, run, overlap, catchUp: CatchUp.ALL };
  const { schedule } = await cadre.schedules.putSchedule({ definition });
  if (schedule === undefined) throw new Error("no schedule");
  return schedule;
}

/** Makes the minute before this one due, as if nobody had looked since, and tells the owner. This one follows. */
async function dueSinceAMinute(scheduleId: string): Promise<void> {
  await superuser.query(
    "update schedule set next_due = date_trunc('minute', clock_timestamp()) - interval '1 minute' where schedule_id = $1",
    [toUuid("sch", scheduleId)],
  );
  await superuser.query("select pg_notify($1, '')", [scheduleChannel]);
}

async function runsOf(scheduleId: string) {
  return (await cadre.runs.listRuns({ filter: { scheduleId } })).runs;
}

test("a schedule starts real runs, which say which schedule started them", async () => {
  const { scheduleId, nextTimes } = await put("every-minute", echo, Overlap.ALLOW, "* * * * *");
  expect(nextTimes).toHaveLength(5);
  await dueSinceAMinute(scheduleId);
  const states = async () => (await runsOf(scheduleId)).map(({ state }) => state);
  await expect.poll(states).toEqual([RunState.SUCCEEDED, RunState.SUCCEEDED]);
  const [run] = await runsOf(scheduleId);
  expect(run).toMatchObject({ scheduleId, name: "echo", labels: { by: "every-minute" } });
  await expect
    .poll(async () => (await cadre.schedules.getSchedule({ scheduleId })).schedule)
    .toMatchObject({ lastRunId: run?.runId, skipped: 0n });
});

test("a time that waits for a real run starts when that one ends", async () => {
  const { scheduleId } = await put("queue", waiting, Overlap.QUEUE, "* * * * *");
  await dueSinceAMinute(scheduleId);
  const queued = "select queued_due is not null as queued from schedule where schedule_id = $1";
  await expect
    .poll(async () => (await superuser.query(queued, [toUuid("sch", scheduleId)])).rows)
    .toEqual([{ queued: true }]);
  const [first, ...others] = await runsOf(scheduleId);
  expect(others).toEqual([]);
  await cadre.runs.signalRun({ runId: first?.runId ?? "", signal: "go" });
  await expect.poll(async () => (await runsOf(scheduleId)).length).toBe(2);
});

test("an earlier run is really cancelled when that is asked for", async () => {
  const { scheduleId } = await put("cancel", waiting, Overlap.CANCEL, "* * * * *");
  await dueSinceAMinute(scheduleId);
  await expect
    .poll(async () => (await runsOf(scheduleId)).map(({ state }) => state))
    .toEqual([RunState.WAITING, RunState.CANCELLED]);
});

test("what could never start is refused before it is stored", async () => {
  const of = (definition: object) =>
    reasonOf(
      cadre.schedules.putSchedule({
        definition: {
          name: "bad",
          cron: "* * * * *",
          run: { definition: { case: "graph", value: echo } },
          ...definition,
        },
      }),
    );
  expect(await of({ cron: "61 * * * *" })).toBe("INVALID_ARGUMENT");
  expect(await of({ cron: "0 0 31 feb *" })).toBe("INVALID_ARGUMENT");
  expect(await of({ timeZone: "Europe/Atlantis" })).toBe("INVALID_ARGUMENT");
  expect(await of({ run: { definition: { case: "agent", value: "nobody" } } })).toBe("AGENT_NOT_FOUND");
  const loop = fromJson(GraphSchema, {
    name: "loop",
    steps: [{ name: "a", after: [{ step: "a" }], signal: { signal: "x" } }],
  });
  expect(await of({ run: { definition: { case: "graph", value: loop } } })).toBe("INVALID_GRAPH");
  expect((await cadre.schedules.listSchedules({})).schedules.map(({ definition }) => definition?.name)).not.toContain(
    "bad",
  );
});

test("schedules are listed by name, in pages, and are not found when they are gone", async () => {
  for (const name of ["z-last", "a-first", "m-middle"]) await put(name);
  const names: string[] = [];
  for (let pageToken = "", pages = 0; pages === 0 || pageToken !== ""; pages += 1) {
    const page = await cadre.schedules.listSchedules({ pageSize: 2, pageToken });
    names.push(...page.schedules.map(({ definition }) => definition?.name ?? ""));
    pageToken = page.nextPageToken;
  }
  expect(names).toEqual([...names].sort());
  const { scheduleId } = await put("z-last");
  await cadre.schedules.deleteSchedule({ scheduleId });
  expect(await reasonOf(cadre.schedules.getSchedule({ scheduleId }))).toBe("SCHEDULE_NOT_FOUND");
  expect(await reasonOf(cadre.schedules.deleteSchedule({ scheduleId }))).toBe("SCHEDULE_NOT_FOUND");
  expect(await reasonOf(cadre.schedules.getSchedule({ scheduleId: newId("sch") }))).toBe("SCHEDULE_NOT_FOUND");
});
