import { setTimeout as delay } from "node:timers/promises";
import type { Meter } from "@opentelemetry/api";
import { boundary } from "../failpoint/failpoint.ts";
import type { Logger } from "../log/log.ts";
import { backOffMs } from "../wait/back-off.ts";
import type { BusEvent, EventBus } from "./event-bus.ts";

// Invariants:
// R1. A position is marked as relayed only after the bus answered for everything
//     up to it. So killing the relay at any line loses nothing; what it had
//     published and not marked is published again.
// R2. Batches are published one after the other, in the order of the log.

/**
 * A log whose facts are to reach the bus: a service's journal, or its outbox.
 * Positions ascend without holes in the order of commit. A source of several
 * logs has a `Position` of its own kind, which the relay does not look into.
 */
export interface RelaySource<Position = bigint> {
  /** What follows the relayed position, in order: at most about `limit` facts. Undefined if nothing does. */
  read(limit: number): Promise<RelayBatch<Position> | undefined>;
  /** Everything up to and including `position` has reached the bus. */
  markRelayed(position: Position): Promise<void>;
  /** How many entries are waiting: the log's last position less the relayed one. */
  lag(): Promise<bigint>;
}

/** A part of the log. Most entries of some logs state nothing to others, and have no event. */
export interface RelayBatch<Position = bigint> {
  readonly events: readonly BusEvent[];
  /** Of the last entry that the batch covers. */
  readonly position: Position;
  /** Whether there is more behind it. */
  readonly more: boolean;
}

export interface RelayOptions<Position = bigint> {
  /** Names the source in logs and metrics, for example `orchestrator`. */
  readonly name: string;
  readonly source: RelaySource<Position>;
  readonly bus: EventBus;
  readonly log: Logger;
  readonly meter?: Meter;
  /** Facts in a batch. Default 500. */
  readonly batchSize?: number;
  /** How long it sleeps if nobody wakes it, in milliseconds. Default 1,000. */
  readonly idleMs?: number;
}

/** Moves a log's facts to the bus. */
export interface Relay {
  /** There are new entries. Never blocks, never throws; call it after each commit, or on NOTIFY. */
  wake(): void;
  /** Ends after the batch under way. Idempotent. */
  stop(): Promise<void>;
}

const waits = { firstMs: 200, mostMs: 5_000 } as const;
/** How long what is new waits for company, in milliseconds: a look for each commit would cost more than the commits. */
const gatherMs = 100;

/** Starts a relay. One log has one relay at a time; the source sees to that. */
export function startRelay<Position = bigint>(options: RelayOptions<Position>): Relay {
  const { name, source, bus, log, batchSize = 500, idleMs = 1_000 } = options;
  const stopping = new AbortController();
  const { signal } = stopping;
  let isAwake = false;
  let rouse: () => void = () => undefined;

  const relayed = options.meter?.createCounter("cadre.relay.events", { description: "Facts handed to the bus." });
  const failures = options.meter?.createCounter("cadre.relay.failures", { description: "Batches that failed." });
  options.meter
    ?.createObservableGauge("cadre.relay.lag", { description: "Entries that wait for the bus." })
    .addCallback(async (result) => {
      try {
        result.observe(Number(await source.lag()), { relay: name });
      } catch (error) {
        log.debug({ err: error, relay: name }, "the relay's lag is not known now");
      }
    });

  /** Relays one batch; returns whether there may be more. */
  async function relayBatch(): Promise<boolean> {
    const batch = await boundary("relay.read", () => source.read(batchSize));
    if (batch === undefined) return false;
    const { events, position, more } = batch;
    if (events.length > 0) await boundary("relay.publish", () => bus.publish(events));
    await boundary("relay.mark", () => source.markRelayed(position));
    relayed?.add(events.length, { relay: name });
    return more;
  }

  async function sleep(ms: number): Promise<void> {
    if (isAwake || signal.aborted) return;
    const woken = new AbortController();
    rouse = () => woken.abort();
    await delay(ms, undefined, { signal: woken.signal }).catch(() => undefined); // woken
    rouse = () => undefined;
  }

  async function run(): Promise<void> {
    let failed = 0;
    while (!signal.aborted) {
      isAwake = false;
      try {
        const mayHaveMore = await relayBatch();
        failed = 0;
        if (!mayHaveMore) {
          await sleep(idleMs);
          await delay(gatherMs, undefined, { signal }).catch(() => undefined); // stopped
        }
      } catch (error) {
        failed += 1;
        failures?.add(1, { relay: name });
        log.warn({ err: error, relay: name, failed }, "the relay could not hand on a batch");
        await delay(backOffMs(failed, waits), undefined, { signal }).catch(() => undefined); // stopped
      }
    }
  }

  const running = run();
  return {
    wake() {
      isAwake = true;
      rouse();
    },
    async stop() {
      stopping.abort();
      rouse();
      await running;
    },
  };
}
