import { create } from "@bufbuild/protobuf";
import {
  AcknowledgeChangesResponseSchema,
  type WatchChangesResponse,
  WatchChangesResponseSchema,
} from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AppError } from "../errors/app-error.ts";
import { type ChangeFeed, type ChangeFeedOptions, createChangeFeed } from "./change-feed.ts";
import { clockDependency } from "./clock-dependency.ts";

const log = pino({ level: "silent" });

/** A stream that the test feeds, one for each connection. */
class FakeStream {
  readonly watcherId: string;
  readonly #queue: WatchChangesResponse[] = [];
  #wake: () => void = () => {};
  #failure: Error | undefined;
  ended = false;

  constructor(watcherId: string) {
    this.watcherId = watcherId;
  }

  send(revision: bigint, change: WatchChangesResponse["change"]): void {
    this.#queue.push(create(WatchChangesResponseSchema, { revision, change }));
    this.#wake();
  }

  heartbeat(revision: bigint): void {
    this.send(revision, { case: "heartbeat", value: { $typeName: "cadre.credentials.v1.Heartbeat" } });
  }

  revoke(revision: bigint, subject: string): void {
    const value = { $typeName: "cadre.credentials.v1.CredentialRevoked", subject, tokenId: "" } as const;
    this.send(revision, { case: "credentialRevoked", value });
  }

  break(): void {
    this.#failure = new Error("the connection was lost");
    this.#wake();
  }

  async *read(signal: AbortSignal | undefined): AsyncGenerator<WatchChangesResponse> {
    signal?.addEventListener("abort", () => this.#wake());
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (this.#failure !== undefined) throw this.#failure;
        const message = this.#queue.shift();
        if (message !== undefined) yield message;
        else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.ended = true;
    }
  }
}

let streams: FakeStream[];
let acknowledged: { watcherId: string; revision: bigint }[];
let answerDelayMs: number;
let freshForMs: number;
let refusal: AppError | undefined;
let feed: ChangeFeed;
const heard: string[] = [];

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  streams = [];
  acknowledged = [];
  answerDelayMs = 0;
  freshForMs = 900;
  refusal = undefined;
  heard.length = 0;
  const client: ChangeFeedOptions["client"] = {
    watchChanges({ watcherId }, options) {
      const stream = new FakeStream(watcherId ?? "");
      streams.push(stream);
      return stream.read(options?.signal);
    },
    async acknowledgeChanges({ watcherId, revision }) {
      if (refusal !== undefined) throw refusal;
      heard.push(`acknowledged ${revision}`);
      acknowledged.push({ watcherId: watcherId ?? "", revision: revision ?? 0n });
      const answer = create(AcknowledgeChangesResponseSchema, { freshForMs });
      if (answerDelayMs > 0) await new Promise((resolve) => setTimeout(resolve, answerDelayMs));
      return answer;
    },
  };
  feed = createChangeFeed({ client, processId: "p", log });
  feed.listen({ onRevoked: ({ subject }) => heard.push(`revoked ${subject}`), onReset: () => heard.push("reset") });
  await vi.advanceTimersByTimeAsync(0);
});
afterEach(async () => {
  const stopped = feed.stop();
  await vi.advanceTimersByTimeAsync(3_000);
  await stopped;
  vi.useRealTimers();
});

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
const stream = (): FakeStream => {
  const last = streams.at(-1);
  if (last === undefined) throw new Error("nobody watches");
  return last;
};

test("a change is applied before it is acknowledged, and everything is dropped before the first one", async () => {
  stream().heartbeat(4n);
  await pass(0);
  stream().revoke(5n, "key_a");
  await pass(0);
  expect(heard).toEqual(["reset", "acknowledged 4", "revoked key_a", "acknowledged 5"]);
  expect(feed.revision).toBe(5n);
});

test("it is fresh for as long as the answer says, from when the acknowledgement was sent", async () => {
  expect(feed.isFresh()).toBe(false);
  answerDelayMs = 300;
  stream().heartbeat(1n);
  await pass(299);
  expect(feed.isFresh()).toBe(false);
  await pass(1);
  expect(feed.isFresh()).toBe(true);
  await pass(599);
  expect(feed.isFresh()).toBe(true);
  await pass(1);
  expect(feed.isFresh()).toBe(false);
});

test("an answer of nothing makes nothing fresh", async () => {
  freshForMs = 0;
  stream().heartbeat(1n);
  await pass(10);
  expect(feed.isFresh()).toBe(false);
});

test("a change that comes while an acknowledgement is under way is acknowledged after it", async () => {
  answerDelayMs = 50;
  stream().heartbeat(1n);
  await pass(10);
  stream().revoke(2n, "key_a");
  stream().revoke(3n, "key_b");
  await pass(100);
  expect(acknowledged.map(({ revision }) => revision)).toEqual([1n, 3n]);
});

test("a stream that breaks ends the freshness at once; the next begins with a reset and another name", async () => {
  stream().heartbeat(1n);
  await pass(0);
  expect(feed.isFresh()).toBe(true);
  stream().break();
  await pass(0);
  expect(feed.isFresh()).toBe(false);
  await pass(200);
  expect(streams).toHaveLength(2);
  expect(streams[1]?.watcherId).not.toBe(streams[0]?.watcherId);
  stream().heartbeat(7n);
  await pass(0);
  expect(heard.filter((one) => one === "reset")).toHaveLength(2);
  expect(feed.isFresh()).toBe(true);
});

test("two feeds of one process watch under different names", async () => {
  const names: string[] = [];
  const client: ChangeFeedOptions["client"] = {
    async *watchChanges({ watcherId }) {
      names.push(watcherId ?? "");
    },
    acknowledgeChanges: async () => create(AcknowledgeChangesResponseSchema),
  };
  const feeds = [createChangeFeed({ client, processId: "p", log }), createChangeFeed({ client, processId: "p", log })];
  await pass(0);
  await Promise.all(feeds.map((each) => each.stop()));
  expect(new Set(names).size).toBe(2);
});

test("a stream that falls silent is given up", async () => {
  stream().heartbeat(1n);
  await pass(0);
  await pass(2_500);
  expect(streams[0]?.ended).toBe(true);
  expect(streams.length).toBeGreaterThan(1);
});

test("while nobody answers it tries again ever more slowly, at most about once a second", async () => {
  for (let second = 0; second < 20; second++) {
    for (const each of streams) if (!each.ended) each.break();
    await pass(1_000);
  }
  expect(streams.length).toBeLessThan(45);
  expect(streams.length).toBeGreaterThan(10);
});

test("a change of a kind that it does not know drops everything", async () => {
  stream().heartbeat(1n);
  await pass(0);
  stream().send(2n, { case: undefined });
  await pass(0);
  expect(heard.filter((one) => one === "reset")).toHaveLength(2);
});

test("who waits until it is fresh is told, or may give up", async () => {
  const waiting = feed.whenFresh();
  const giveUp = new AbortController();
  const givenUp = feed.whenFresh(giveUp.signal).catch((thrown: unknown) => thrown);
  giveUp.abort(new Error("enough"));
  expect(await givenUp).toMatchObject({ message: "enough" });
  stream().heartbeat(1n);
  await pass(0);
  await waiting;
  await feed.whenFresh();
});

test("a refusal for the clock shows in readiness until an acknowledgement is taken again; another failure does not", async () => {
  const clock = async () => (await clockDependency(feed).check()).detail;
  stream().heartbeat(1n);
  await pass(0);
  expect(await clock()).toBe("");
  refusal = new AppError("UNAVAILABLE", "the clocks differ", { metadata: { clocks: "differ" } });
  stream().heartbeat(1n);
  await pass(0);
  expect(await clock()).toBe("the clocks differ");
  refusal = new AppError("UNAVAILABLE", "no answer");
  stream().heartbeat(1n);
  await pass(0);
  expect(feed.failure?.message).toBe("no answer");
  expect(await clock()).toBe("");
  refusal = undefined;
  stream().heartbeat(1n);
  await pass(0);
  expect(feed.failure).toBeUndefined();
});
