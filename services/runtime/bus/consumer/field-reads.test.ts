import { clone, create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { TurnChangedSchema } from "@cadre/gen/cadre/events/v1/turn_pb";
import { FieldUseService, type ReportFieldReadsRequest } from "@cadre/gen/cadre/registry/v1/field_use_pb";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import pino from "pino";
import { expect, onTestFinished, test, vi } from "vitest";
import { conversationTurns } from "../topics.ts";
import { createFieldReads } from "./field-reads.ts";

const log = pino({ level: "silent" });
const fact = create(TurnChangedSchema, { sessionId: "ses_x" });
const ofVersion = (id: string) => ({ headers: { "cadre-schema-id": id } });

/** A registry that keeps what it is told, and is away while `isAway` is. */
function registry() {
  const reports: ReportFieldReadsRequest[] = [];
  const state = { reports, isAway: false, calls: 0 };
  const transport = createRouterTransport(({ service }) => {
    service(FieldUseService, {
      reportFieldReads(request) {
        state.calls += 1;
        if (state.isAway) throw new ConnectError("away", Code.Unavailable);
        reports.push(request);
        return {};
      },
    });
  });
  return { state, client: createClient(FieldUseService, transport) };
}

test("of each version one event in 256 is watched, and one a minute", () => {
  let nowMs = 1_000_000;
  const reads = createFieldReads({ registry: registry().client, log, now: () => nowMs, firstMs: 1_000_000 });
  const sample = reads.sampler(conversationTurns, "test");
  const isWatched = (version: string): boolean => {
    const twin = clone(TurnChangedSchema, fact);
    sample(ofVersion(version), twin);
    return Object.getOwnPropertyDescriptor(twin, "sessionId")?.get !== undefined;
  };
  const count = (times: number, version = "1") =>
    Array.from({ length: times }, () => isWatched(version)).filter(Boolean).length;
  expect(isWatched("1")).toBe(true);
  expect(count(254)).toBe(0);
  expect(count(1)).toBe(1);
  expect(count(512)).toBe(2);
  expect(isWatched("2")).toBe(true);
  nowMs += 60_000;
  expect([isWatched("1"), isWatched("1"), isWatched("2")]).toEqual([true, false, true]);
  reads.stop();
});

test("reads are reported once a minute at most; what a registry that is away was not told is told with the next", async () => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const { state, client } = registry();
  state.isAway = true;
  const reads = createFieldReads({ registry: client, log });
  const sample = reads.sampler(conversationTurns, "test");
  const read = (version: string, field: "sessionId" | "turnId") => {
    const twin = clone(TurnChangedSchema, fact);
    sample(ofVersion(version), twin);
    expect(twin[field]).toBe(fact[field]);
  };
  const readAtMs = Date.now();
  read("1", "sessionId");
  expect(state.calls).toBe(0);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(state.calls).toBe(1);
  state.isAway = false;
  read("2", "turnId");
  await vi.advanceTimersByTimeAsync(59_000);
  expect(state.calls).toBe(1);
  await vi.advanceTimersByTimeAsync(1_000);
  const told = state.reports.flatMap(({ reads: all }) => all).sort((a, b) => (a.field < b.field ? -1 : 1));
  expect(
    told.map((one) => [one.typeName, one.field, one.group, one.lastReadAt && timestampMs(one.lastReadAt) - readAtMs]),
  ).toEqual([
    ["cadre.events.v1.TurnChanged", "", "test", 1_000],
    ["cadre.events.v1.TurnChanged", "session_id", "test", 0],
    ["cadre.events.v1.TurnChanged", "turn_id", "test", 1_000],
  ]);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(state.calls).toBe(2);
  reads.stop();
});
