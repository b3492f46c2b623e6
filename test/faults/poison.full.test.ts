import { join } from "node:path";
import { reasonName } from "@cadre/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { reach, say } from "../support/fault-driver.ts";
import { runProgram } from "../support/run-program.ts";
import { type PoisonWorld, settle, startPoisonWorld } from "./poison.ts";

const count = 5_000;
const poison = 50;
const program = join(import.meta.dirname, "../../cli/bin/cadre.js");
let world: PoisonWorld;
beforeAll(async () => {
  world = await startPoisonWorld(count);
});
afterAll(() => world.stop());

test("one percent of 5,000 is poison: 50 kept as they came, 4,950 handled, requeued with one effect", async () => {
  await settle(world, count);
  expect(await world.effects()).toEqual({ total: count - poison, distinct: count - poison });
  expect(await world.changed()).toBe(0);
  expect(world.longestMs()).toBeLessThan(5_000);
  say(`the longest that a partition was held up: ${Math.round(world.longestMs())} ms`);

  world.heal();
  const letters = await world.letters();
  const curable = letters.filter(({ reason }) => ["INTERNAL", "DEADLINE_EXCEEDED"].includes(reasonName(reason)));
  const ids = curable.map(({ deadLetterId }) => deadLetterId);
  const { url, adminKey } = world.server;
  const requeue = (...some: readonly string[]) =>
    runProgram(
      process.execPath,
      [program, "events", "dead-letters", "requeue", ...some, "--url", url, "--api-key", adminKey],
      { timeoutMs: 60_000 },
    );
  // One of them by twenty commands at once.
  const first = await Promise.all(Array.from({ length: 20 }, () => requeue(ids[0] ?? "")));
  expect(first.map(({ code }) => code)).toEqual(first.map(() => 0));
  expect((await requeue(...ids)).code).toBe(0);
  const healed = count - poison + ids.length;
  await reach("the effects of what was requeued", async () => (await world.effects()).distinct === healed);
  expect(await world.effects()).toEqual({ total: healed, distinct: healed });
});
