import { expect, test } from "vitest";
import { redeliver } from "./redelivery.ts";

test("1,000 events, each delivered ten times, neighbours swapped, over a consumer's death and a guest: 1,000 effects", async () => {
  const verdict = await redeliver({ events: 1_000, deliveries: 10, guest: true });
  expect(verdict).toMatchObject({ effects: 1_000, distinct: 1_000 });
  expect(verdict.whenKilled).toBeGreaterThan(0);
});
