import { type BusVerdict, type BusWorldOptions, openBusWorld } from "./bus-world.ts";
import { reach, say } from "./fault-driver.ts";

/** What is done to the server of the bus. */
export interface BusFault {
  /** Ends it at once. */
  begin(): Promise<void>;
  /** Brings it back. */
  end(): Promise<void>;
}

export interface BusKillsOptions extends BusWorldOptions {
  /** Events of a key; one more follows when all is over. */
  readonly perKey: number;
  /** How often the relay and one of two consumers are killed. */
  readonly kills: number;
  /** How many events had their effect since the last kill before the next one. */
  readonly leastBetween: number;
  /** What else happens at each kill. */
  readonly fault?: BusFault;
}

/** What came of it. */
export interface BusKillsVerdict extends BusVerdict {
  /** From the end of the last fault until everything had its effect, in milliseconds. */
  readonly drainMs: number;
}

/** Of a bus that keeps its promises. */
export const allWell = { lost: 0, unexpected: 0, doubled: 0, overtaken: 0 } as const;

/** Longer than anything should take on a busy machine. */
const patienceMs = 120_000;

/**
 * Accepts events while the relay that publishes them, the consumers that handle
 * them and the server of the bus are killed in the middle of their work; then
 * counts what became of each event.
 */
export async function killBus(options: BusKillsOptions): Promise<BusKillsVerdict> {
  const { keys, perKey, kills, leastBetween, fault } = options;
  const world = await openBusWorld(options);
  try {
    const total = keys * perKey;
    const share = Math.ceil(total / (kills + 1));
    const progress = async (before: number): Promise<void> => {
      const isReached = async () => (await world.effects()) >= before + leastBetween;
      await reach(`${leastBetween} effects more than ${before}`, isReached, { timeoutMs: patienceMs });
    };
    let relay = await world.startRelay();
    let consumers = [await world.startConsumer(), await world.startConsumer()] as const;
    await world.accept(share);
    await progress(0);
    let backAtMs = performance.now();
    for (let kill = 1; kill <= kills; kill++) {
      const [first, second] = consumers;
      await Promise.all([relay.crash(), first.crash(), fault?.begin()]);
      const before = await world.effects();
      say(`kill ${kill} of ${kills}, after ${before} effects`);
      // What is accepted now meets a relay without a bus.
      await world.accept(Math.min(share, total - kill * share));
      const [newRelay, newConsumer] = await Promise.all([world.startRelay(), world.startConsumer()]);
      relay = newRelay;
      consumers = [second, newConsumer];
      await fault?.end();
      backAtMs = performance.now();
      await progress(before);
    }
    await world.drain();
    const drainMs = performance.now() - backAtMs;
    for (const child of [relay, ...consumers]) {
      const code = await child.finish();
      if (code !== 0) throw new Error(`a process ended with ${code}: ${child.errors()}`);
    }
    return { ...(await world.judge()), drainMs };
  } finally {
    await world.close();
  }
}
