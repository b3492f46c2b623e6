import { ReasonSchema } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { RunChange } from "@cadre/gen/cadre/events/v1/run_pb";
import { TurnChange } from "@cadre/gen/cadre/events/v1/turn_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { createEventCodec } from "../../runtime/bus/envelope.ts";
import { createLocalSchemaIds } from "../../runtime/bus/schema-ids.ts";
import { agentRuns, conversationTurns } from "../../runtime/bus/topics.ts";
import type { FailureReason } from "../../runtime/errors/app-error.ts";
import { isFailureReason } from "../../runtime/errors/failure.ts";
import { fromUuid, newId } from "../../runtime/ids/id.ts";
import type { Entry, EntryBody } from "../domain/entry.ts";
import type { Json } from "../domain/json.ts";
import type { JournaledEntry } from "./fact-metadata.ts";
import { toRunChanged } from "./run-facts.ts";
import { toTurnChanged } from "./turn-facts.ts";

const reasons = ReasonSchema.values.map(({ localName }) => localName).filter(isFailureReason);
const reason = fc.constantFrom<FailureReason>(...reasons);
const error = fc.record({ reason, message: fc.string() });
const end = fc.oneof(
  fc.record({ state: fc.constant("succeeded" as const), answer: fc.string() }),
  fc.record({ state: fc.constant("failed" as const), error, toolsMayStillRun: fc.constant([]) }),
  fc.record({ state: fc.constant("cancelled" as const), toolsMayStillRun: fc.constant([]) }),
);
const graphEnd = fc.oneof(
  fc.record({
    state: fc.constant("succeeded" as const),
    output: fc.record({ value: fc.jsonValue().map((value) => value as Json), blob: fc.constant(undefined) }),
  }),
  fc.record({ state: fc.constant("failed" as const), error, step: fc.string() }),
  fc.record({ state: fc.constant("cancelled" as const) }),
);

/** Every kind of entry that states a fact; what the facts leave out is not there. */
const body: fc.Arbitrary<EntryBody> = fc.oneof(
  fc.constant({ type: "run.accepted" } as EntryBody),
  fc.constant({ type: "run.started" } as EntryBody),
  fc.constant({ type: "graph.started" } as EntryBody),
  fc.record({ type: fc.constant("run.ended" as const), end, started: fc.boolean() }),
  fc.record({ type: fc.constant("graph.ended" as const), end: graphEnd }),
  fc.record({
    type: fc.constant("run.parked" as const),
    parked: fc.record({ reason, message: fc.string(), diff: fc.constant([]) }),
  }),
  fc.record({ type: fc.constant("run.resumed" as const), principal: fc.uint8Array(), requestId: fc.constant("") }),
);
const entry: fc.Arbitrary<Entry> = fc.record({ atMs: fc.integer({ min: 0, max: 253_402_300_799_999 }), body });
const uuid = fc.uuid();
const journaled: fc.Arbitrary<JournaledEntry> = fc.record({
  orgId: uuid.map((id) => fromUuid("org", id)),
  runId: uuid.map((id) => fromUuid("run", id)),
  seq: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  entry,
  origin: fc.record({
    sessionId: fc.oneof(
      fc.constant(""),
      uuid.map((id) => fromUuid("ses", id)),
    ),
    requestId: fc.oneof(fc.constant(""), fc.constant(newId("req"))),
    // Callers send it, so it may be anything.
    labels: fc.constantFrom<Readonly<Record<string, string>>>(
      {},
      { "cadre.publish": "output" },
      { "cadre.publish": "no" },
    ),
    traceparent: fc.oneof(fc.string({ maxLength: 80 }), fc.constant(`00-${"4b".repeat(16)}-${"00f0".repeat(4)}-01`)),
  }),
});

test("what is derived from the journal always passes the check of what is published", async () => {
  const codec = createEventCodec(createLocalSchemaIds());
  const seen = new Set<string>();
  await fc.assert(
    fc.asyncProperty(journaled, async (given) => {
      const origin = { orgId: given.orgId, traceparent: given.origin.traceparent };
      const turn = toTurnChanged(given);
      if (turn !== undefined) {
        seen.add(TurnChange[turn.change]);
        expect(await codec.decode(conversationTurns, await codec.encode(conversationTurns, turn, origin))).toEqual(
          turn,
        );
      }
      const run = toRunChanged(given);
      if (run !== undefined) {
        seen.add(RunChange[run.change]);
        expect(await codec.decode(agentRuns, await codec.encode(agentRuns, run, origin))).toEqual(run);
      }
    }),
    { numRuns: 1_000 },
  );
  expect([...seen].sort()).toEqual(["ACCEPTED", "CANCELLED", "FAILED", "PARKED", "RESUMED", "STARTED", "SUCCEEDED"]);
});
