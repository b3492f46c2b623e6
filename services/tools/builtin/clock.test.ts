import { expect, test } from "vitest";
import { createClock } from "./clock.ts";

const summer = Date.UTC(2026, 6, 1, 12, 0, 0, 7);
const winter = Date.UTC(2026, 0, 1, 12, 0, 0, 0);
const call = { orgId: "org", requestId: "req", signal: new AbortController().signal };

test.each([
  [summer, undefined, "2026-07-01T12:00:00.007Z"],
  [summer, "UTC", "2026-07-01T12:00:00.007Z"],
  [summer, "Europe/Berlin", "2026-07-01T14:00:00.007+02:00"],
  [winter, "Europe/Berlin", "2026-01-01T13:00:00.000+01:00"],
  [winter, "America/St_Johns", "2026-01-01T08:30:00.000-03:30"],
  [winter, "Asia/Kathmandu", "2026-01-01T17:45:00.000+05:45"],
  [winter, "Pacific/Kiritimati", "2026-01-02T02:00:00.000+14:00"],
])("at %d in %s it is %s", (now, zone, expected) => {
  const answer = createClock(() => now).run(zone === undefined ? {} : { time_zone: zone }, call);
  expect(answer).toEqual({ time: expected, time_zone: zone ?? "UTC" });
  expect(Date.parse(expected)).toBe(now);
});

test.each(["Mars/Olympus", "+02:00", "", "../etc/passwd", "Europe/Berlin\n"])("there is no zone %j", (zone) => {
  expect(() => createClock().run({ time_zone: zone }, call)).toThrow("no such time zone");
});
