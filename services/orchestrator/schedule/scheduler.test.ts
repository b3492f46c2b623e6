import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { StartRunRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import {
  CatchUp,
  Overlap,
  type ScheduleDefinition,
  ScheduleDefinitionSchema,
} from "@cadre/gen/cadre/orchestrator/v1/schedule_pb";
import pg from "pg";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { migrateOrchestrator, testPrincipal } from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid, newId, toUuid } from "../../runtime/ids/id.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { openDatabase } from "../../runtime/postgres/open-database.ts";
import { EventFeed } from "../app/event-feed.ts";
import { nextTime } from "../domain/schedule-times.ts";
import { PostgresScheduleStore, type ScheduleStore, type StoredSchedule } from "../store/schedule-store.ts";
import type { OrchestratorSchema } from "../store/schema.ts";
import type { ScheduledRuns, ScheduledStart } from "./fire-schedule.ts";
import { ruleOf } from "./schedule-rule.ts";
import { Scheduler } from "./scheduler.ts";

const everyShard = Array.from({ length: 64 }, (_, shard) => shard);
const log = pino({ level: "silent" }) as Logger;
const principal = testPrincipal();
const org = toUuid("org", principal.orgId);

let server: TestDatabase;
let database: Database<OrchestratorSchema>;
let superuser: pg.Client;
let schedules: ScheduleStore;
let clock: TestClock;
let runs: TestRuns;
let feed: EventFeed;
let scheduler: Scheduler;

beforeEach(async () => {
  server = await createTestDatabase();
  await migrateOrchestrator(server.url);
  database = openDatabase<OrchestratorSchema>({ url: server.url, service: "orchestrator", log, maxConnections: 4 });
  superuser = new pg.Client(server.url);
  await superuser.connect();
  await superuser.query("set search_path = orchestrator");
  schedules = new PostgresScheduleStore(database);
  clock = new TestClock(Date.parse("2026-11-21T12:00:00Z"));
  runs = new TestRuns();
  feed = new EventFeed();
  scheduler = startScheduler();
});

afterEach(async () => {
  await scheduler.stop();
  await superuser.end();
  await database.close();
  await server.drop();
});

/** A clock that is set by the test, and calls back what was asked for. */
class TestClock {
  nowMs: number;
  #due: { readonly atMs: number; readonly callback: () => void } | undefined;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  /** When it is asked to call back, as RFC 3339. */
  get armedFor(): string | undefined {
    return this.#due === undefined ? undefined : new Date(this.#due.atMs).toISOString();
  }

  readonly after = (ms: number, callback: () => void): (() => void) => {
    const due = { atMs: this.nowMs + ms, callback };
    this.#due = due;
    return () => {
      if (this.#due === due) this.#due = undefined;
    };
  };

  /** Goes on to a time, from one call to the next, as a machine that was never away. */
  async runTo(time: string): Promise<void> {
    const toMs = Date.parse(time);
    for (;;) {
      await scheduler.look();
      const due = this.#due;
      if (due === undefined || due.atMs > toMs) break;
      this.nowMs = Math.max(this.nowMs, due.atMs);
      this.#due = undefined;
    }
    this.nowMs = toMs;
  }
}

/** Stands for the engine: what it starts is a row of the table of runs, one for each key. */
class TestRuns implements ScheduledRuns {
  readonly started: { readonly key: string; readonly runUuid: string; readonly start: ScheduledStart }[] = [];
  readonly cancelled: string[] = [];
  before: () => Promise<void> = async () => undefined;
  after: () => Promise<void> = async () => undefined;

  /** The times for which runs were started, to the minute. */
  get times(): string[] {
    return this.started.map(({ key }) => key.split(":").slice(2).join(":").slice(0, 16));
  }

  async start(start: ScheduledStart): Promise<string> {
    await this.before();
    const known = this.started.find(({ key }) => key === start.idempotencyKey);
    if (known !== undefined) return known.runUuid;
    const runUuid = toUuid("run", newId("run"));
    this.started.push({ key: start.idempotencyKey, runUuid, start });
    await superuser.query(
      "insert into run (run_id, org_id, root_id, shard, view, schedule_id) values ($1, $2, $1, 0, '', $3)",
      [runUuid, org, toUuid("sch", start.scheduleId)],
    );
    await this.after();
    return runUuid;
  }

  async cancel(runUuid: string): Promise<void> {
    this.cancelled.push(runUuid);
    await this.end(runUuid);
  }

  async end(runUuid: string): Promise<void> {
    await superuser.query("update run set ended = true, state = 4 where run_id = $1", [runUuid]);
  }

  /** What is started ends at once from here on. */
  endAtOnce(): void {
    this.after = async () => {
      await this.end(this.started.at(-1)?.runUuid ?? "");
    };
  }
}

function startScheduler(
  revoked: ReadonlySet<string> = new Set(),
  may: (asked: Principal) => Principal = (asked) => asked,
) {
  return new Scheduler({
    schedules,
    runs,
    principals: {
      async assertMayAct(asked) {
        if (revoked.has(asked.subject)) throw new AppError("PRINCIPAL_REVOKED", "the credential is valid no more");
        return may(asked);
      },
    },
    now: () => clock.nowMs,
    shards: () => everyShard,
    feed,
    notifications: database,
    log,
    after: clock.after,
  });
}

async function put(definition: Omit<Partial<ScheduleDefinition>, "$typeName" | "$unknown">): Promise<StoredSchedule> {
  const whole = create(ScheduleDefinitionSchema, {
    name: "nightly",
    cron: "0 * * * *",
    run: create(StartRunRequestSchema, { definition: { case: "agent", value: "helper" } }),
    ...definition,
  });
  return await schedules.put(org, {
    scheduleId: toUuid("sch", newId("sch")),
    definition: whole,
    principal,
    nextDueMs: whole.paused ? undefined : nextTime(ruleOf(whole).times, clock.nowMs),
    maxSchedules: 2,
  });
}

async function reload(): Promise<StoredSchedule> {
  const [schedule] = await schedules.list(org, "", 1);
  if (schedule === undefined) throw new Error("no schedule");
  return schedule;
}

describe("runs start", () => {
  test("in time, one for each, with the schedule's request, id and key", async () => {
    runs.endAtOnce();
    const { scheduleId } = await put({ cron: "*/20 * * * *" });
    await scheduler.look();
    expect(clock.armedFor).toBe("2026-11-21T12:20:00.000Z");
    await clock.runTo("2026-11-21T13:10:00Z");
    expect(runs.times).toEqual(["2026-11-21T12:20", "2026-11-21T12:40", "2026-11-21T13:00"]);
    const id = fromUuid("sch", scheduleId);
    expect(runs.started[0]?.start).toMatchObject({
      principal: { subject: principal.subject },
      scheduleId: id,
      request: { definition: { case: "agent", value: "helper" } },
      idempotencyKey: `schedule:${id}:2026-11-21T12:20:00.000Z`,
    });
    expect(await reload()).toMatchObject({
      lastRunId: runs.started[2]?.runUuid,
      lastDueMs: Date.parse("2026-11-21T13:00:00Z"),
      nextDueMs: Date.parse("2026-11-21T13:20:00Z"),
      skipped: 0n,
      lastError: undefined,
      starting: undefined,
    });
  });

  test.each([
    [
      "Europe/Berlin",
      "30 2 * * *",
      "2026-03-28T00:00Z",
      "2026-03-31T00:00Z",
      ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"],
    ],
    [
      "Europe/Berlin",
      "30 2 * * *",
      "2026-10-24T00:00Z",
      "2026-10-26T12:00Z",
      ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"],
    ],
    [
      "America/New_York",
      "30 2 * * *",
      "2026-03-07T00:00Z",
      "2026-03-09T12:00Z",
      ["2026-03-07T07:30", "2026-03-08T07:00", "2026-03-09T06:30"],
    ],
    [
      "America/New_York",
      "30 1 * * *",
      "2026-10-31T00:00Z",
      "2026-11-02T12:00Z",
      ["2026-10-31T05:30", "2026-11-01T05:30", "2026-11-02T06:30"],
    ],
    [
      "Australia/Lord_Howe",
      "15 2 * * *",
      "2026-10-02T12:00Z",
      "2026-10-05T00:00Z",
      ["2026-10-02T15:45", "2026-10-03T15:30", "2026-10-04T15:15"],
    ],
    [
      "Australia/Lord_Howe",
      "45 1 * * *",
      "2026-04-03T12:00Z",
      "2026-04-06T00:00Z",
      ["2026-04-03T14:45", "2026-04-04T14:45", "2026-04-05T15:15"],
    ],
  ])("once a day while the clock of %s changes: %s from %s", async (timeZone, cron, from, to, expected) => {
    runs.endAtOnce();
    clock.nowMs = Date.parse(from);
    await put({ cron, timeZone });
    await clock.runTo(to);
    expect(runs.times).toEqual(expected);
  });

  test("not while the schedule is paused, nor after it is gone", async () => {
    const { scheduleId } = await put({ paused: true });
    await clock.runTo("2026-11-21T14:30:00Z");
    await put({});
    await schedules.delete(org, scheduleId);
    await clock.runTo("2026-11-21T16:30:00Z");
    expect(runs.times).toEqual([]);
    expect(clock.armedFor).toBeUndefined();
  });
});

describe("times that passed while no process ran", () => {
  const hours = ["2026-11-21T13:00", "2026-11-21T13:20", "2026-11-21T13:40", "2026-11-21T14:00"];
  test.each([
    ["by default the last one", {}, ["2026-11-21T14:00", "2026-11-21T14:20"]],
    ["none", { catchUp: CatchUp.NONE }, ["2026-11-21T14:20"]],
    ["all of an hour", { catchUp: CatchUp.ALL }, [...hours.slice(1), "2026-11-21T14:20"]],
    [
      "all of a day",
      { catchUp: CatchUp.ALL, catchUpWindow: durationFromMs(86_400_000) },
      [...hours, "2026-11-21T14:20"],
    ],
  ])("%s", async (_what, definition, expected) => {
    runs.endAtOnce();
    clock.nowMs = Date.parse("2026-11-21T12:50:00Z");
    await put({ cron: "*/20 * * * *", ...definition });
    // Nobody looks for an hour and a quarter.
    clock.nowMs = Date.parse("2026-11-21T14:05:00Z");
    await clock.runTo("2026-11-21T14:30:00Z");
    expect(runs.times).toEqual(expected);
    expect((await reload()).skipped).toBe(0n);
  });
});

describe("while an earlier run is open", () => {
  test("a time is left out, counted, and said", async () => {
    await put({ overlap: Overlap.SKIP });
    await clock.runTo("2026-11-21T15:30:00Z");
    expect(runs.times).toEqual(["2026-11-21T13:00"]);
    expect(await reload()).toMatchObject({ skipped: 2n, lastError: { message: expect.stringContaining("15:00") } });
    await runs.end(runs.started[0]?.runUuid ?? "");
    await clock.runTo("2026-11-21T16:30:00Z");
    expect(runs.times).toEqual(["2026-11-21T13:00", "2026-11-21T16:00"]);
    expect(await reload()).toMatchObject({ skipped: 2n, lastError: undefined });
  });

  test("one time waits, and starts when the run's end is told", async () => {
    await put({ overlap: Overlap.QUEUE });
    await clock.runTo("2026-11-21T15:30:00Z");
    expect(runs.times).toEqual(["2026-11-21T13:00"]);
    expect(await reload()).toMatchObject({ queuedDueMs: Date.parse("2026-11-21T14:00:00Z"), skipped: 1n });
    const first = runs.started[0]?.runUuid ?? "";
    await runs.end(first);
    feed.wake(first);
    await expect.poll(() => runs.times).toEqual(["2026-11-21T13:00", "2026-11-21T14:00"]);
    await scheduler.look();
    expect(await reload()).toMatchObject({ queuedDueMs: undefined, nextDueMs: Date.parse("2026-11-21T16:00:00Z") });
  });

  test("both run, or the earlier one is cancelled first", async () => {
    const { scheduleId } = await put({ overlap: Overlap.ALLOW });
    await clock.runTo("2026-11-21T14:30:00Z");
    expect(runs.times).toEqual(["2026-11-21T13:00", "2026-11-21T14:00"]);
    await put({ overlap: Overlap.CANCEL });
    await clock.runTo("2026-11-21T15:30:00Z");
    expect(runs.cancelled).toEqual(runs.started.slice(0, 2).map(({ runUuid }) => runUuid));
    expect(runs.times).toHaveLength(3);
    expect(await schedules.openRuns(scheduleId, 10)).toEqual([runs.started[2]?.runUuid]);
  });
});

describe("a process that dies", () => {
  test.each(["before", "after"] as const)("%s the run is stored starts it once all the same", async (when) => {
    await put({});
    runs[when] = async () => {
      runs[when] = async () => undefined;
      throw new AppError("UNAVAILABLE", "cut off");
    };
    clock.nowMs = Date.parse("2026-11-21T13:00:00Z");
    await scheduler.look();
    expect((await reload()).starting?.dueMs).toBe(Date.parse("2026-11-21T13:00:00Z"));
    await scheduler.stop();
    // Longer than keys of callers are remembered.
    if (when === "after") runs.started[0] = { ...runs.started[0], key: "forgotten" } as never;
    scheduler = startScheduler();
    await clock.runTo("2026-11-21T13:00:30Z");
    expect(runs.started).toHaveLength(1);
    expect(await reload()).toMatchObject({
      starting: undefined,
      lastRunId: runs.started[0]?.runUuid,
      nextDueMs: Date.parse("2026-11-21T14:00:00Z"),
    });
  });

  test("beside another one that looks at the same time makes no second run", async () => {
    runs.endAtOnce();
    await put({ cron: "* * * * *" });
    const other = startScheduler();
    for (let minute = 1; minute <= 10; minute += 1) {
      clock.nowMs += 60_000;
      await Promise.all([scheduler.look(), other.look()]);
    }
    await other.stop();
    await scheduler.look();
    expect(runs.times).toEqual([...new Set(runs.times)]);
    expect(runs.times).toHaveLength(10);
  });
});

describe("what cannot be started", () => {
  test("for a principal that was revoked, or may not start runs, is counted and said", async () => {
    await scheduler.stop();
    scheduler = startScheduler(new Set([principal.subject]));
    await put({});
    await clock.runTo("2026-11-21T13:30:00Z");
    expect(await reload()).toMatchObject({ skipped: 1n, lastError: { message: "the credential is valid no more" } });
    await scheduler.stop();
    scheduler = startScheduler(new Set(), (asked) => ({ ...asked, scopes: ["runs.read"] }));
    await clock.runTo("2026-11-21T14:30:00Z");
    expect(await reload()).toMatchObject({
      skipped: 2n,
      lastError: { message: expect.stringContaining("runs.write") },
    });
    expect(runs.started).toEqual([]);
  });

  test("for good is said, and the next time is tried", async () => {
    runs.before = async () => {
      throw new AppError("AGENT_NOT_FOUND", "no such agent");
    };
    await put({});
    await clock.runTo("2026-11-21T13:30:00Z");
    expect(await reload()).toMatchObject({ skipped: 0n, lastError: { message: "no such agent" }, starting: undefined });
    runs.before = async () => undefined;
    await clock.runTo("2026-11-21T14:30:00Z");
    expect(runs.times).toEqual(["2026-11-21T14:00"]);
  });

  test("for now is tried again, sooner than the next time", async () => {
    let failures = 4;
    runs.before = async () => {
      failures -= 1;
      if (failures >= 0) throw new AppError("UNAVAILABLE", "away");
    };
    await put({});
    await clock.runTo("2026-11-21T13:00:10Z");
    expect(runs.times).toEqual(["2026-11-21T13:00"]);
  });
});

describe("a definition", () => {
  test("that is put again changes nothing, and another one what is next", async () => {
    const first = await put({});
    expect(await put({})).toEqual(first);
    const changed = await put({ cron: "30 * * * *" });
    expect(changed).toMatchObject({ scheduleId: first.scheduleId, nextDueMs: Date.parse("2026-11-21T12:30:00Z") });
    await put({ name: "other" });
    await expect(put({ name: "third" })).rejects.toMatchObject({ reason: "LIMIT_EXCEEDED" });
  });

  test("of another org is not there", async () => {
    const { scheduleId } = await put({});
    const other = toUuid("org", newId("org"));
    expect(await schedules.find(other, scheduleId)).toBeUndefined();
    expect(await schedules.delete(other, scheduleId)).toBe(false);
    expect(await schedules.list(other, "", 10)).toEqual([]);
  });
});
