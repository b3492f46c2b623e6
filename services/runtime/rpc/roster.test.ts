import fc from "fast-check";
import { expect, test } from "vitest";
import { Roster, type Seat } from "./roster.ts";

test("whoever comes and goes, it holds those who are here", () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.nat(20), { nil: "join" as const })), (changes) => {
      const roster = new Roster<number>();
      const here = new Set<number>();
      const seats: Seat[] = [];
      for (const change of changes) {
        if (change === "join") {
          here.add(seats.length);
          seats.push(roster.join(seats.length));
        } else if (change < seats.length) {
          here.delete(change);
          seats[change]?.leave();
        }
        expect([...roster].sort((a, b) => a - b)).toEqual([...here]);
        expect(roster.size).toBe(here.size);
      }
    }),
  );
});

test("who leaves while all are told, keeps nobody from being told", () => {
  const roster = new Roster<string>();
  const seats = ["a", "b", "c"].map((member) => roster.join(member));
  const told: string[] = [];
  for (const member of roster) {
    told.push(member);
    for (const seat of seats) seat.leave();
  }
  expect(told.sort()).toEqual(["a", "b", "c"]);
  expect(roster.size).toBe(0);
});
