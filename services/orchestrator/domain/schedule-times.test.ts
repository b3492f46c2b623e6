import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CronError, parseCron } from "./cron.ts";
import { lastTime, nextTime, nextTimes, type ScheduleTimes } from "./schedule-times.ts";
import { findZone } from "./zone.ts";

function times(cron: string, zoneName = "UTC"): ScheduleTimes {
  const zone = findZone(zoneName);
  if (zone === undefined) throw new Error(`no zone ${zoneName}`);
  return { cron: parseCron(cron), zone };
}

/** The next times after an instant, as RFC 3339 to the minute. */
function upcoming(cron: string, zone: string, after: string, count: number): string[] {
  return nextTimes(times(cron, zone), Date.parse(after), count).map((ms) => new Date(ms).toISOString().slice(0, 16));
}

describe("a change of the clock", () => {
  test.each([
    // Europe/Berlin: 02:00 to 03:00 are left out on 29 March 2026, and come twice on 25 October.
    ["left out", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:30"]],
    ["all left out", "*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:00"]],
    ["falls together", "30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-29T01:30"]],
    ["same instant", "0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:00"]],
    ["comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30", "2026-10-26T01:30"]],
    ["each once", "*/30 * * * *", "Europe/Berlin", "2026-10-25T00:10Z", ["2026-10-25T00:30", "2026-10-25T02:00"]],
    // America/New_York: 02:00 to 03:00 are left out on 8 March 2026, and 01:00 to 02:00 come twice on 1 November.
    ["left out", "30 2 * * *", "America/New_York", "2026-03-08T00:00Z", ["2026-03-08T07:00", "2026-03-09T06:30"]],
    ["comes twice", "15 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["2026-11-01T05:15", "2026-11-02T06:15"]],
    // Australia/Lord_Howe moves by half an hour: 02:00 to 02:30 on 4 October, 01:30 to 02:00 on 5 April.
    ["left out", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T01:00Z", ["2026-10-03T15:30", "2026-10-04T15:15"]],
    ["exists", "30 2 * * *", "Australia/Lord_Howe", "2026-10-03T01:00Z", ["2026-10-03T15:30", "2026-10-04T15:30"]],
    ["comes twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T01:00Z", ["2026-04-04T14:45", "2026-04-05T15:15"]],
    // Pacific/Apia left out a whole day, 30 December 2011.
    ["a day left out", "0 12 * * *", "Pacific/Apia", "2011-12-29T12:00Z", ["2011-12-29T22:00", "2011-12-30T10:00"]],
  ])("%s: %s in %s after %s", (_what, cron, zone, after, expected) => {
    expect(upcoming(cron, zone, after, expected.length)).toEqual(expected);
  });

  test("agrees with looking at the clock every minute", () => {
    const zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana"];
    const changes = ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01", "2026-02-15"];
    const field = (max: number) =>
      fc.oneof(
        fc.constant("*"),
        fc.nat(max).map(String),
        fc.integer({ min: 2, max: 20 }).map((step) => `*/${step}`),
      );
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        fc.constantFrom(...changes),
        field(59),
        fc.oneof(field(23), fc.constantFrom("0", "1", "2", "3", "1-3")),
        (zone, date, minute, hour) => {
          const from = Date.parse(`${date}T00:00Z`) - 14 * 3_600_000;
          const to = from + 42 * 3_600_000;
          const wanted = times(`${minute} ${hour} * * *`, zone);
          const found: number[] = [];
          for (let next = nextTime(wanted, from - 1); next !== undefined && next < to; next = nextTime(wanted, next)) {
            found.push(next);
            expect(lastTime(wanted, next + 59_999)).toBe(next);
          }
          expect(found).toEqual(watchClock(wanted, from, to));
        },
      ),
      { numRuns: 15 },
    );
  });

  /** The same by another way: what a clock on the wall shows, minute by minute, and what it leaves out. */
  function watchClock({ cron, zone }: ScheduleTimes, from: number, to: number): number[] {
    const shown = new Set<number>();
    const found = new Set<number>();
    const begin = from - 6 * 3_600_000;
    let last = begin + zone.offsetAt(begin) - 60_000;
    for (let at = begin; at < to; at += 60_000) {
      const civil = at + zone.offsetAt(at);
      // Everything between what was shown last and now is left out, and counts now.
      for (let minute = last + 60_000; minute <= civil; minute += 60_000) {
        const date = new Date(minute);
        const matches = cron.minutes.includes(date.getUTCMinutes()) && cron.hours.includes(date.getUTCHours());
        if (matches && !shown.has(minute)) found.add(at);
        shown.add(minute);
      }
      last = Math.max(last, civil);
    }
    return [...found].filter((at) => at >= from).sort((a, b) => a - b);
  }
});

describe("a cron expression", () => {
  test.each([
    ["*/20 9-10 * * mon-fri", "2026-11-20T10:00Z", ["2026-11-20T10:20", "2026-11-20T10:40", "2026-11-23T09:00"]],
    ["0 0 29 feb *", "2026-01-01T00:00Z", ["2028-02-29T00:00"]],
    ["0 0 13 * FRI", "2026-11-07T00:00Z", ["2026-11-13T00:00", "2026-11-20T00:00"]],
    ["0 12 1,15 Jan,Jul *", "2026-02-01T00:00Z", ["2026-07-01T12:00", "2026-07-15T12:00", "2027-01-01T12:00"]],
    ["0 6 * * 7", "2026-11-21T00:00Z", ["2026-11-22T06:00", "2026-11-29T06:00"]],
    ["50/5 * * * *", "2026-11-21T00:00Z", ["2026-11-21T00:50", "2026-11-21T00:55", "2026-11-21T01:50"]],
    // A day of the month that is `*` with a step restricts nothing for the week, as in Vixie cron.
    ["0 0 */2 * mon", "2026-11-01T00:00Z", ["2026-11-09T00:00", "2026-11-23T00:00"]],
  ])("%s after %s", (cron, after, expected) => {
    expect(upcoming(cron, "UTC", after, expected.length)).toEqual(expected);
  });

  test.each([
    ["* * * *", "has 4 fields"],
    ["@daily", "has 1 fields"],
    ["60 * * * *", 'minute: "60" is not from 0 to 59'],
    ["* * 0 * *", 'day of the month: "0"'],
    ["* * * foo *", 'month: "foo" is not from 1 to 12, nor one of jan'],
    ["*/0 * * * *", "minute: a step of 0"],
    ["5-2 * * * *", 'minute: the range "5-2" runs backwards'],
    ["1,,2 * * * *", 'minute: "" is no value'],
    ["* * * * mon-", 'day of the week: "mon-" is no value'],
    ["* * L * *", 'day of the month: "L" is not from'],
  ])("%s is refused", (cron, message) => {
    expect(() => parseCron(cron)).toThrow(CronError);
    expect(() => parseCron(cron)).toThrow(message);
  });

  test("that never comes is known as such, soon", () => {
    const before = process.cpuUsage();
    expect(nextTime(times("0 0 31 feb,apr *"), 0)).toBeUndefined();
    expect(process.cpuUsage(before).user / 1_000).toBeLessThan(1_000);
  });
});

test.each(["", "Europe/Atlantis", "+02:00", "../etc", "a".repeat(64)])("%j is no zone", (name) => {
  expect(findZone(name)).toBeUndefined();
});
