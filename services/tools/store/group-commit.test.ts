import { expect, test } from "vitest";
import { AppError } from "../../runtime/errors/app-error.ts";
import { GroupCommit } from "./group-commit.ts";

/** Work that is done when the test says so. */
function held(answer: (items: readonly number[]) => readonly number[]) {
  const groups: { key: string; items: readonly number[]; end: () => void }[] = [];
  const commit = new GroupCommit<number, number>(async (key, items) => {
    await new Promise<void>((end) => groups.push({ key, items, end }));
    return answer(items);
  });
  return { commit, groups };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

test("what comes while a group is under way is the next one, and each gets its own answer", async () => {
  const { commit, groups } = held((items) => items.map((item) => item * 10));
  const answers = Promise.all([1, 2, 3].map((item) => commit.add("a", item)));
  await turn();
  expect(groups.map(({ items }) => items)).toEqual([[1]]);
  groups[0]?.end();
  await turn();
  expect(groups.map(({ items }) => items)).toEqual([[1], [2, 3]]);
  groups[1]?.end();
  expect(await answers).toEqual([10, 20, 30]);
});

test("keys do not wait for each other", async () => {
  const { commit, groups } = held((items) => items);
  const first = commit.add("a", 1);
  const second = commit.add("b", 2);
  await turn();
  expect(groups.map(({ key }) => key)).toEqual(["a", "b"]);
  groups[1]?.end();
  expect(await second).toBe(2);
  groups[0]?.end();
  expect(await first).toBe(1);
});

test("an item that fails its group fails alone", async () => {
  const { commit, groups } = held((items) => {
    if (items.includes(3)) throw new Error("3 cannot be done");
    return items;
  });
  const answers = Promise.allSettled([1, 2, 3, 4].map((item) => commit.add("a", item)));
  for (let done = 0; done < 5; done++) {
    await turn();
    groups[done]?.end();
  }
  expect(groups.map(({ items }) => items)).toEqual([[1], [2, 3, 4], [2], [3], [4]]);
  expect((await answers).map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
});

test("what is nobody's fault is told to all, at once", async () => {
  const { commit, groups } = held((items) => {
    if (items.length > 1) throw new AppError("UNAVAILABLE", "no connection");
    return items;
  });
  const answers = Promise.allSettled([1, 2, 3].map((item) => commit.add("a", item)));
  await turn();
  groups[0]?.end();
  await turn();
  groups[1]?.end();
  expect((await answers).map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected"]);
  expect(groups).toHaveLength(2);
});
