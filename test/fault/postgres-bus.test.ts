import { test } from "vitest";
import { expectToSurviveKills } from "../support/bus-kills.ts";

test("no event is lost and none overtakes another, whatever is killed", { timeout: 120_000 }, async () => {
  await expectToSurviveKills({ keys: 12, perKey: 100, kills: 4, leastBetween: 20 });
});
