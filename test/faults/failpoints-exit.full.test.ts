import { expect, test } from "vitest";
import { failpoints, placesOf } from "./failpoints.ts";

test("each place in one process, twice `exit`: nothing is lost and nothing doubled", async () => {
  const names = placesOf("dev");
  const { fired, verdicts, stalled } = await failpoints({ topology: "dev", names, actions: ["exit"], times: 2 });
  expect(verdicts.flatMap(({ problems }) => problems)).toEqual([]);
  expect(stalled).toEqual([]);
  for (const name of names) expect(fired.get(`${name} exit`), name).toBeGreaterThanOrEqual(2);
});
