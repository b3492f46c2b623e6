import fc from "fast-check";
import { expect, test } from "vitest";
import { createIdSource, fromUuid, isId, newId, toUuid } from "./id.ts";

test("an id is its prefix and 26 characters, and goes to a UUID of version 7 and back", () => {
  const id = newId("ses");
  expect(id).toMatch(/^ses_[0-7][0-9a-hjkmnp-tv-z]{25}$/);
  expect(toUuid("ses", id)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(fromUuid("ses", toUuid("ses", id))).toBe(id);
});

test("every UUID survives the round trip", () => {
  fc.assert(
    fc.property(fc.uuid(), (uuid) => {
      expect(toUuid("run", fromUuid("run", uuid))).toBe(uuid);
    }),
  );
});

test.each(["", "0198c0de-0000-7000-8000-00000000000", "0198c0de-0000-7000-8000-0000000000011", "none"])(
  "%j is no UUID",
  (text) => {
    expect(() => fromUuid("run", text)).toThrow(TypeError);
  },
);

test("a UUID is read in capitals, too, and without its dashes", () => {
  const uuid = "0198c0de-0000-7abc-8def-00000000000f";
  expect(fromUuid("run", uuid.toUpperCase())).toBe(fromUuid("run", uuid));
  expect(fromUuid("run", uuid.replaceAll("-", ""))).toBe(fromUuid("run", uuid));
});

test("ids ascend, within a millisecond, over an exhausted counter and when the clock goes back", () => {
  const clock = [5, 5, 4, 6];
  let calls = 0;
  const next = createIdSource(() => clock[Math.min(Math.floor(calls++ / 3000), 3)] ?? 6);
  const ids = Array.from({ length: 12_000 }, () => next("evt"));
  expect(ids).toEqual([...ids].sort());
  expect(new Set(ids).size).toBe(ids.length);
});

test.each([
  "ses_",
  "run_01hzy0000000000000000000000",
  "ses_81hzy000000000000000000000",
  "ses_01hzy00000000000000000000u",
  "",
])("%j is no session id", (text) => {
  expect(isId("ses", text)).toBe(false);
  expect(() => toUuid("ses", text)).toThrow(TypeError);
});
