import { expect, test } from "vitest";
import { runWorkload } from "../support/run-workload.ts";
import { turnWorkload } from "../support/turn-workload.ts";
import { postgresOutages } from "./postgres-outages.ts";

test("PostgreSQL is away for a minute, three times: nothing is lost, no storm of connections, and all is back by itself", async () => {
  const outages = ["fast", "killed", "fast"] as const;
  const result = await postgresOutages({
    runs: runWorkload({ shape: "one", stepMs: 500 }),
    turns: turnWorkload({ rounds: 1, fanOut: 1, stepMs: 500 }),
    outages,
    downMs: 60_000,
  });
  for (const verdict of Object.values(result.verdicts)) {
    expect(verdict.problems).toEqual([]);
    expect(verdict.acked).toBeGreaterThanOrEqual(60);
  }
  expect(result.ended).toEqual([]);
  expect(result.missing.toSorted()).toEqual(["credentials", "events", "orchestrator", "registry", "tools"]);
  // Who cannot be served is told so, and when to come again.
  expect(result.told).toHaveLength(3);
  for (const { reason, retryAfterMs } of result.told) {
    expect(reason).toBe("UNAVAILABLE");
    expect(retryAfterMs).toBeGreaterThan(0);
  }
  expect(result.refusals.UNAVAILABLE).toBeGreaterThan(0);
  for (const reason of Object.keys(result.refusals)) {
    expect(["UNAVAILABLE", "BACKPRESSURE", "DEADLINE_EXCEEDED"]).toContain(reason);
  }
  expect(result.longestUnnoticedMs).toBeLessThan(10_000);
  expect(result.longestReadyMs).toBeLessThan(10_000);
  expect(result.longestRefusingMs).toBeLessThan(10_000);
  for (const [service, connects] of Object.entries(result.connectsPerSecond)) {
    expect(connects, service).toBeLessThanOrEqual(10);
  }
  expect(Object.keys(result.connectsPerSecond).sort()).toEqual([
    "credentials",
    "events",
    "orchestrator",
    "registry",
    "tools",
  ]);
});
