import { expect, test } from "vitest";
import { failpointActions } from "../support/failpoints.ts";
import { failpoints, placesOf } from "./failpoints.ts";

test("each place between two owners, three times in each way: nothing is lost and nothing doubled", async () => {
  const names = placesOf("mesh");
  const { fired, verdicts, stalled } = await failpoints({
    topology: "mesh",
    names,
    actions: failpointActions,
    times: 3,
  });
  expect(verdicts.flatMap(({ problems }) => problems)).toEqual([]);
  expect(stalled).toEqual([]);
  for (const name of names) {
    for (const action of failpointActions) expect(fired.get(`${name} ${action}`), name).toBeGreaterThanOrEqual(3);
  }
});
