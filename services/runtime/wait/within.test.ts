import { expect, test } from "vitest";
import { within } from "./within.ts";

test("what the work gives or throws in time is the outcome", async () => {
  expect(await within(60_000, Promise.resolve(1), () => "late")).toBe(1);
  await expect(within(60_000, Promise.reject(new Error("no")), () => "late")).rejects.toThrow("no");
});

test("work that takes longer is given up: what comes of that is the caller's choice", async () => {
  const work = Promise.withResolvers<number>();
  expect(await within(5, work.promise, () => "late")).toBe("late");
  const late = within(5, work.promise, () => {
    throw new Error("too late");
  });
  await expect(late).rejects.toThrow("too late");
  // Nobody is left who would be told, and nothing is unhandled.
  work.reject(new Error("no"));
  await expect(work.promise).rejects.toThrow("no");
});
