import { expect, test } from "vitest";
import { untilAborted } from "./until-aborted.ts";

const never = new AbortController().signal;

test("what the work gives or throws is the outcome", async () => {
  expect(await untilAborted(Promise.resolve(1), never)).toBe(1);
  await expect(untilAborted(Promise.reject(new Error("no")), never)).rejects.toThrow("no");
});

test("a signal that aborts ends the waiting with its reason; the work goes on", async () => {
  const work = Promise.withResolvers<number>();
  const leaving = new AbortController();
  const waiting = untilAborted(work.promise, leaving.signal);
  leaving.abort(new Error("gone"));
  await expect(waiting).rejects.toThrow("gone");
  await expect(untilAborted(work.promise, leaving.signal)).rejects.toThrow("gone");
  // Nobody is left who would be told, and nothing is unhandled.
  work.reject(new Error("late"));
  await expect(work.promise).rejects.toThrow("late");
});
