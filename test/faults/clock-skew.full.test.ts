import { join } from "node:path";
import { expect, test } from "vitest";
import { witnessDirectory } from "../support/fault-driver.ts";
import { assertMutated, mutatedEnvironment, mutations } from "../support/mutate.ts";
import { clockSkew } from "./clock-skew.ts";

test("the clock of an orchestrator and of tools is 10 min fast, 10 min slow, 1 h fast: nothing is lost, doubled or early", async () => {
  const skewsSeconds = [600, -600, 3_600];
  const { skews, early, verdict } = await clockSkew({ services: ["orchestrator", "tools"], skewsSeconds });
  expect(verdict.problems).toEqual([]);
  expect(early).toEqual([]);
  expect(verdict.acked).toBeGreaterThanOrEqual(100);
  expect(skews).toHaveLength(6);
  for (const { service, seconds, logged, told, stood } of skews) {
    const which = `${service} ${seconds} s`;
    // The clock was off indeed, and what the process sends or is sent was refused for that reason.
    expect(Math.abs(logged - seconds), which).toBeLessThan(60);
    expect(told, which).toMatch(/clocks of \w+ and \w+ differ/);
    // Another orchestrator goes on with its runs; there is no other tools, so what calls it waits.
    if (service === "orchestrator") expect(stood, which).toBe(0);
    else expect(stood, which).toBeGreaterThan(0);
  }
});

test("control: where a process with a wrong clock keeps its shards, its runs stand still until the clock is right", async () => {
  const directory = witnessDirectory("mutation");
  const log = join(directory.path, "log");
  const edits = mutations["a wrong clock keeps its shards"];
  const settings = mutatedEnvironment(edits, log);
  const { skews, verdict } = await clockSkew({ services: ["orchestrator"], skewsSeconds: [600], settings });
  assertMutated(edits, log);
  directory.remove();
  expect(verdict.problems).toEqual([]);
  expect(skews[0]?.stood).toBeGreaterThan(0);
});
