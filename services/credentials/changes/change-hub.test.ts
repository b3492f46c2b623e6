import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Change, ChangeStore, NumberedChange } from "../store/change-store.ts";
import { type ChangeHub, createChangeHub, leaseMs } from "./change-hub.ts";

const log = pino({ level: "silent" });

/** The database's side, in memory, with what can go wrong there. */
class FakeChangeStore implements ChangeStore {
  readonly changes: NumberedChange[] = [];
  others = 0;
  /** How long a read takes. */
  readDelayMs = 0;
  fails = false;

  commit(subject: string): bigint {
    const revision = BigInt(this.changes.length + 1);
    const change: Change = { kind: "credential_revoked", orgId: "", subject, tokenId: "" };
    this.changes.push({ revision, change });
    return revision;
  }

  async readAfter(revision: bigint) {
    if (this.fails) throw new Error("the database is down");
    // The snapshot is taken when the read begins.
    const snapshot = [...this.changes];
    if (this.readDelayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.readDelayMs));
    return {
      newest: snapshot.at(-1)?.revision ?? 0n,
      changes: snapshot.filter((change) => change.revision > revision),
    };
  }

  async announce() {
    if (this.fails) throw new Error("the database is down");
  }

  async withdraw() {}

  async countOthers() {
    return this.others;
  }
}

let store: FakeChangeStore;
let hub: ChangeHub;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  store = new FakeChangeStore();
  hub = createChangeHub({ store, processId: "p", log });
});
afterEach(async () => {
  const stopped = hub.stop();
  await vi.advanceTimersByTimeAsync(5_000);
  await stopped;
  vi.useRealTimers();
});

/** A watcher that collects what it is told; it acknowledges when it is asked to. */
async function watch(id: string) {
  const aborter = new AbortController();
  const seen: { revision: bigint; kind: string | undefined }[] = [];
  const ended = (async () => {
    for await (const message of hub.watch(id, aborter.signal)) {
      seen.push({ revision: message.revision, kind: message.change.case });
    }
  })().catch((thrown: unknown) => thrown);
  await vi.advanceTimersByTimeAsync(0);
  return {
    seen,
    ended,
    revision: () => seen.at(-1)?.revision ?? -1n,
    acknowledge: () => hub.acknowledge(id, seen.at(-1)?.revision ?? -1n),
    stop: () => aborter.abort(),
  };
}

/** When a promise resolved, in milliseconds from now; undefined while it has not. */
function timed(promise: Promise<unknown>): { after: () => number | undefined } {
  const start = performance.now();
  let resolvedAfter: number | undefined;
  void promise.then(() => {
    resolvedAfter = performance.now() - start;
  });
  return { after: () => resolvedAfter };
}

test("a watcher begins at the newest revision and hears a heartbeat at least every 250 ms", async () => {
  store.commit("old");
  await vi.advanceTimersByTimeAsync(300);
  const watcher = await watch("w");
  expect(watcher.seen).toEqual([{ revision: 1n, kind: "heartbeat" }]);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(watcher.seen.length).toBeGreaterThanOrEqual(5);
  expect(watcher.seen.every(({ kind }) => kind === "heartbeat")).toBe(true);
});

test("a lease ends a second after the read that it rests on began, not after it was granted", async () => {
  await vi.advanceTimersByTimeAsync(10);
  const watcher = await watch("w");
  store.readDelayMs = 150;
  await vi.advanceTimersByTimeAsync(2_000);
  const freshForMs = watcher.acknowledge();
  expect(freshForMs).toBeGreaterThan(0);
  expect(freshForMs).toBeLessThanOrEqual(leaseMs - 150);
});

test("no lease for a watcher that is behind, is not known, or whose process cannot read", async () => {
  await vi.advanceTimersByTimeAsync(10);
  const watcher = await watch("w");
  expect(watcher.acknowledge()).toBeGreaterThan(0);
  expect(hub.acknowledge("stranger", 0n)).toBe(0);
  store.commit("k");
  hub.poke();
  await vi.advanceTimersByTimeAsync(1);
  expect(hub.acknowledge("w", 0n)).toBe(0);
  expect(watcher.acknowledge()).toBeGreaterThan(0);
  store.fails = true;
  await vi.advanceTimersByTimeAsync(leaseMs);
  expect(watcher.acknowledge()).toBe(0);
});

describe("settling a change", () => {
  test("ends when every watcher with a lease has acknowledged", async () => {
    await vi.advanceTimersByTimeAsync(10);
    const [first, second] = [await watch("a"), await watch("b")];
    first.acknowledge();
    second.acknowledge();
    const settled = timed(hub.settle(store.commit("k")));
    await vi.advanceTimersByTimeAsync(5);
    expect(first.revision()).toBe(1n);
    first.acknowledge();
    await vi.advanceTimersByTimeAsync(5);
    expect(settled.after()).toBeUndefined();
    second.acknowledge();
    await vi.advanceTimersByTimeAsync(5);
    expect(settled.after()).toBeLessThan(20);
  });

  test("needs nothing of a watcher that never had a lease", async () => {
    await vi.advanceTimersByTimeAsync(10);
    await watch("a");
    const settled = timed(hub.settle(store.commit("k")));
    await vi.advanceTimersByTimeAsync(5);
    expect(settled.after()).toBeLessThan(10);
  });

  test("waits for the lease of a watcher whose stream is gone", async () => {
    await vi.advanceTimersByTimeAsync(10);
    const watcher = await watch("a");
    const freshForMs = watcher.acknowledge();
    watcher.stop();
    await watcher.ended;
    const settled = timed(hub.settle(store.commit("k")));
    await vi.advanceTimersByTimeAsync(freshForMs - 1);
    expect(settled.after()).toBeUndefined();
    await vi.advanceTimersByTimeAsync(200);
    expect(settled.after()).toBeGreaterThanOrEqual(freshForMs);
  });

  test("does not end while a read from before the change could still grant a lease", async () => {
    await vi.advanceTimersByTimeAsync(10);
    const watcher = await watch("a");
    store.readDelayMs = 300;
    hub.poke();
    await vi.advanceTimersByTimeAsync(1); // a read is under way, of the time before
    const revision = store.commit("k");
    const settled = timed(hub.settle(revision));
    await vi.advanceTimersByTimeAsync(250);
    expect(settled.after()).toBeUndefined();
    // Granted on what was known before; so it is waited for, or replaced.
    const freshForMs = watcher.acknowledge();
    await vi.advanceTimersByTimeAsync(100);
    if (freshForMs > 0) expect(settled.after()).toBeUndefined();
    await vi.advanceTimersByTimeAsync(leaseMs + 100);
    expect(settled.after()).toBeLessThanOrEqual(leaseMs + 100);
  });

  test("waits as long as any lease lasts where other processes grant some", async () => {
    store.others = 1;
    await vi.advanceTimersByTimeAsync(10);
    const settled = timed(hub.settle(store.commit("k")));
    await vi.advanceTimersByTimeAsync(leaseMs);
    expect(settled.after()).toBeUndefined();
    await vi.advanceTimersByTimeAsync(200);
    expect(settled.after()).toBeGreaterThanOrEqual(leaseMs);
  });

  test("ends after little more than a second when the database is gone", async () => {
    await vi.advanceTimersByTimeAsync(10);
    const watcher = await watch("a");
    watcher.acknowledge();
    const revision = store.commit("k");
    store.fails = true;
    const settled = timed(hub.settle(revision));
    await vi.advanceTimersByTimeAsync(leaseMs + 200);
    expect(settled.after()).toBeLessThanOrEqual(leaseMs + 100);
    expect(watcher.acknowledge()).toBe(0);
  });
});

test("a gap in the changes ends the streams: what was missed is not known", async () => {
  await vi.advanceTimersByTimeAsync(10);
  const watcher = await watch("a");
  store.commit("one");
  store.commit("two");
  store.changes.shift(); // pruned before it was read
  store.changes.push({ revision: 3n, change: { kind: "limits_changed", orgId: "" } });
  store.changes.push({ revision: 4n, change: { kind: "limits_changed", orgId: "" } });
  hub.poke();
  await vi.advanceTimersByTimeAsync(1);
  expect(await watcher.ended).toMatchObject({ reason: "UNAVAILABLE" });
});

test("a watcher that does not read is cut off", async () => {
  await vi.advanceTimersByTimeAsync(10);
  const slow = hub.watch("slow", new AbortController().signal);
  await slow.next();
  for (let index = 0; index < 1_100; index++) store.commit(`k${index}`);
  hub.poke();
  await vi.advanceTimersByTimeAsync(10);
  await expect(slow.next()).rejects.toMatchObject({ reason: "UNAVAILABLE" });
});

test("before the first read nobody can watch", async () => {
  const early = createChangeHub({ store: Object.assign(new FakeChangeStore(), { fails: true }), processId: "e", log });
  await expect(early.watch("w", new AbortController().signal).next()).rejects.toMatchObject({ reason: "UNAVAILABLE" });
  const stopped = early.stop();
  await vi.advanceTimersByTimeAsync(500);
  await stopped;
});
