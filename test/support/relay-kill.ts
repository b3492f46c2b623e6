import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BusVerdict, type BusWorldOptions, openBusWorld } from "./bus-world.ts";
import { openFailpoints } from "./failpoints.ts";
import { reach } from "./fault-driver.ts";
import { assertMutated, type Edit, mutatedEnvironment } from "./mutate.ts";

/** Events that a relay of `relay-process.ts` publishes at once. */
export const relayBatch = 20;

/** Kills a relay between two batches, before it hands the third one to the bus; another one goes on. */
export async function killRelay(
  options: Pick<BusWorldOptions, "databaseUrl" | "kafka">,
  edits: readonly Edit[],
): Promise<BusVerdict> {
  const directory = mkdtempSync(join(tmpdir(), "mutation-"));
  const mutationLog = join(directory, "log");
  const mutated = mutatedEnvironment(edits, mutationLog);
  const failpoints = openFailpoints();
  const world = await openBusWorld({
    ...options,
    keys: 10,
    relayEnvironment: {
      ...mutated,
      ...failpoints.environment,
      NODE_OPTIONS: `${mutated["NODE_OPTIONS"]} ${failpoints.environment["NODE_OPTIONS"]}`,
    },
  });
  try {
    await world.accept(5 * relayBatch);
    failpoints.armAtStart({ name: "relay.publish", action: "exit", nth: 3 });
    await world.startRelay();
    await reach("the relay's end", () => failpoints.fired().length === 1);
    await Promise.all([world.startRelay(), world.startConsumer()]);
    await world.drain();
    assertMutated(edits, mutationLog);
    return await world.judge();
  } finally {
    await world.close();
    failpoints.dispose();
    rmSync(directory, { recursive: true });
  }
}
