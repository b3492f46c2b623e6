import { expect, test } from "vitest";
import { allWell } from "../support/bus-kills.ts";
import { say } from "../support/fault-driver.ts";
import { crashPostgresBus } from "./postgres-bus.ts";

test("20,000 events over 200 keys while the database, relays and consumers are killed 20 times", async () => {
  const verdict = await crashPostgresBus({ keys: 200, perKey: 100, kills: 20, leastBetween: 200 });
  say(JSON.stringify(verdict));
  expect(verdict).toMatchObject({ accepted: 20_200, ...allWell });
  expect(verdict.drainMs).toBeLessThan(60_000);
});
