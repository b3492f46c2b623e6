import { expect, test } from "vitest";
import { edgeLimits } from "./edge-limits.ts";
import { createSessionGuard } from "./session-guard.ts";

const hourMs = 3_600_000;

function guard() {
  const created = createSessionGuard(edgeLimits, 0, hourMs);
  created.settings(0);
  return created;
}

test("the 101st reset in 10 s is abuse, and 100 in each of many spans are not", () => {
  const session = guard();
  for (let span = 0; span < 5; span++) {
    for (let index = 0; index < 100; index++) {
      session.streamOpened(span * 10_000);
      expect(session.streamClosed(span * 10_000, true)).toBeUndefined();
    }
  }
  session.streamOpened(40_001);
  expect(session.streamClosed(40_001, true)).toBe("resets");
});

test("streams that end by themselves are never abuse", () => {
  const session = guard();
  for (let index = 0; index < 10_000; index++) {
    session.streamOpened(index);
    expect(session.streamClosed(index, false)).toBeUndefined();
  }
  expect(session.openStreams).toBe(0);
});

test("the third PING in 10 s without a stream is abuse; one every 10 s is not", () => {
  const session = guard();
  expect([0, 1, 2].map((nowMs) => session.ping(nowMs, 0))).toEqual([undefined, undefined, "pings"]);
  const kept = guard();
  for (let index = 0; index < 100; index++) expect(kept.ping(index * 10_000, index * 39)).toBeUndefined();
});

test("answers to PINGs earn none, whether they are written at once or together", () => {
  const session = guard();
  const verdicts = Array.from({ length: 100 }, (_, index) => session.ping(index, index < 50 ? 0 : 50 * 17));
  expect(verdicts.filter((verdict) => verdict === "pings").length).toBeGreaterThan(90);
});

test("data of ours earns a PING", () => {
  const session = guard();
  for (let index = 0; index < 1_000; index++) {
    session.streamOpened(index);
    session.streamClosed(index, false);
    expect(session.ping(index, index * 200)).toBeUndefined();
  }
});

test("a session retires at its age, and when it was idle for 5 minutes, but not while a stream is open", () => {
  const session = guard();
  expect(session.sweep(299_999, 0)).toEqual({ kind: "keep" });
  expect(session.sweep(300_000, 0)).toEqual({ kind: "retire", cause: "idle" });
  session.streamOpened(300_000);
  expect(session.sweep(hourMs - 1, 0)).toEqual({ kind: "keep" });
  expect(session.sweep(hourMs, 0)).toEqual({ kind: "retire", cause: "age" });
});

test("without SETTINGS in 10 s the session is cut", () => {
  const session = createSessionGuard(edgeLimits, 0, hourMs);
  expect(session.sweep(9_999, 24)).toEqual({ kind: "keep" });
  expect(session.sweep(10_000, 24)).toEqual({ kind: "cut", abuse: "preface" });
});

test("bytes that make no frame for 10 s are a header that drips; a late WINDOW_UPDATE is not", () => {
  const session = guard();
  const verdicts = Array.from({ length: 12 }, (_, second) => session.sweep(1_000 + second * 1_000, 100 + second).kind);
  expect(verdicts).toContain("cut");
  const honest = guard();
  honest.streamOpened(0);
  honest.streamClosed(1, false);
  expect(honest.sweep(1_000, 500).kind).toBe("keep");
  expect(honest.sweep(2_000, 513).kind).toBe("keep");
  for (let second = 3; second < 200; second++) expect(honest.sweep(second * 1_000, 513).kind).toBe("keep");
});
