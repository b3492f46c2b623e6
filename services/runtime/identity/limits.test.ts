import { create } from "@bufbuild/protobuf";
import { GetLimitsResponseSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { pino } from "pino";
import { beforeEach, expect, test } from "vitest";
import { newId } from "../ids/id.ts";
import type { ChangeFeed, ChangeListener } from "./change-feed.ts";
import { createLimits, type Limits } from "./limits.ts";

const orgId = newId("org");
let listeners: ChangeListener[];
let now: number;
let asked: number;
let value: bigint;
let fails: boolean;
let isFresh: boolean;
let limits: Limits;
beforeEach(() => {
  listeners = [];
  now = 0;
  asked = 0;
  value = 200n;
  fails = false;
  isFresh = true;
  const changes: ChangeFeed = {
    isFresh: () => isFresh,
    failure: undefined,
    revision: 1n,
    listen: (listener) => {
      listeners.push(listener);
      return () => {};
    },
    whenFresh: () => Promise.resolve(),
    stop: () => Promise.resolve(),
  };
  limits = createLimits({
    authentication: {
      async getLimits() {
        asked += 1;
        if (fails) throw new Error("unreachable");
        return create(GetLimitsResponseSchema, { values: { sessions: value } });
      },
    },
    changes,
    log: pino({ level: "silent" }),
    now: () => now,
  });
});

test("a limit is asked for once by many, and then known at once", async () => {
  expect(await Promise.all([limits.get(orgId, "sessions"), limits.get(orgId, "sessions")])).toEqual([200, 200]);
  expect(limits.get(orgId, "sessions")).toBe(200);
  expect(asked).toBe(1);
});

test("a change is asked for, also while an answer from before it is under way", async () => {
  await limits.get(orgId, "sessions");
  value = 300n;
  for (const listener of listeners) listener.onLimitsChanged?.(orgId);
  const before = limits.get(orgId, "sessions");
  for (const listener of listeners) listener.onLimitsChanged?.(orgId);
  value = 400n;
  await before;
  expect(await limits.get(orgId, "sessions")).toBe(400);
});

test("after a reset of the feed everything is asked for again", async () => {
  await limits.get(orgId, "sessions");
  value = 300n;
  for (const listener of listeners) listener.onReset();
  expect(await limits.get(orgId, "sessions")).toBe(300);
});

test("without the feed it asks once a second", async () => {
  isFresh = false;
  await limits.get(orgId, "sessions");
  now += 999;
  await limits.get(orgId, "sessions");
  now += 1;
  await limits.get(orgId, "sessions");
  expect(asked).toBe(2);
});

test("when credentials cannot be reached the last known value holds; one that was never known is unavailable", async () => {
  await limits.get(orgId, "sessions");
  fails = true;
  now += 60_000;
  expect(await limits.get(orgId, "sessions")).toBe(200);
  await expect(limits.get(newId("org"), "sessions")).rejects.toMatchObject({ reason: "UNAVAILABLE" });
});

test("a name that is none is said to be so", async () => {
  await expect(limits.get(orgId, "sessionz")).rejects.toMatchObject({ reason: "LIMIT_NOT_FOUND" });
});
