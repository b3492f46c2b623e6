import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Entry, EntrySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/entry_pb";
import { type ExportedRun, ExportedRunSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { TurnState } from "@cadre/gen/cadre/orchestrator/v1/session_event_pb";
import fc from "fast-check";
import { expect, test } from "vitest";
import { newId, toUuid } from "../../services/runtime/ids/id.ts";
import { verifyLedger } from "./verify-ledger.ts";

const sha = (digit: string) => `sha256:${digit.repeat(64)}`;
const at = timestampFromMs(1_760_000_000_000);

const bodies: readonly Entry["body"][] = [
  create(EntrySchema, {
    body: {
      case: "runAccepted",
      value: {
        requestId: newId("req"),
        agent: { revision: 3, digest: sha("a"), definition: { name: "helper", model: "scripted" } },
        input: { case: "turn", value: { text: "hello" } },
      },
    },
  }).body,
  create(EntrySchema, {
    body: {
      case: "runStarted",
      value: {
        tools: [
          { digest: sha("c"), definition: { name: "mail" } },
          { digest: sha("b"), definition: { name: "echo" } },
        ],
      },
    },
  }).body,
  create(EntrySchema, { body: { case: "cancelRequested", value: { reason: "enough" } } }).body,
  create(EntrySchema, { body: { case: "runEnded", value: { state: TurnState.CANCELLED } } }).body,
];

/** An export whose hashes are right, by the words of the contract. */
function exported(of: readonly Entry["body"][] = bodies): ExportedRun {
  const run = create(ExportedRunSchema, { runId: newId("run") });
  let hash = Buffer.alloc(32);
  for (const [index, body] of of.entries()) {
    const bytes = toBinary(EntrySchema, create(EntrySchema, { at, body }));
    const kind = EntrySchema.fields.find(({ localName }) => localName === body.case)?.number ?? 0;
    const place = Buffer.alloc(6);
    place.writeUInt32BE(index + 1, 0);
    place.writeUInt16BE(kind, 4);
    const id = Buffer.from(toUuid("run", run.runId).replaceAll("-", ""), "hex");
    hash = createHash("sha256")
      .update(Buffer.concat([hash, id, place, bytes]))
      .digest();
    run.entries.push({
      $typeName: "cadre.orchestrator.v1.ExportRunResponse",
      seq: BigInt(index + 1),
      kind,
      body: bytes,
      hash,
      signature: "",
    });
  }
  return run;
}

test("an intact ledger is told with what the run held on to", () => {
  const run = exported();
  const head = Buffer.from(run.entries[3]?.hash ?? []).toString("hex");
  expect(verifyLedger(run, { head: head.toUpperCase() })).toEqual({
    intact: true,
    runId: run.runId,
    entries: 4,
    head,
    ended: true,
    firstAt: new Date(1_760_000_000_000),
    lastAt: new Date(1_760_000_000_000),
    pins: {
      definition: sha("a"),
      agent: "helper@3",
      agents: [],
      tools: [
        { name: "echo", digest: sha("b") },
        { name: "mail", digest: sha("c") },
      ],
      models: ["scripted"],
    },
    signature: { state: "none" },
  });
});

test("any flipped bit is named by its entry", () => {
  fc.assert(
    fc.property(fc.nat(3), fc.constantFrom("body", "hash"), fc.nat(100_000), (index, field, place) => {
      const run = exported();
      const bytes = run.entries[index]?.[field as "body" | "hash"] ?? new Uint8Array();
      const bit = place % (bytes.length * 8);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(verifyLedger(run)).toMatchObject({ intact: false, entry: index + 1 });
    }),
    { numRuns: 300 },
  );
});

test.each([
  ["an entry removed", (run: ExportedRun) => run.entries.splice(1, 1), 2],
  ["two entries swapped", (run: ExportedRun) => run.entries.splice(1, 2, ...run.entries.slice(1, 3).reverse()), 2],
  ["an entry doubled", (run: ExportedRun) => run.entries.splice(1, 0, ...run.entries.slice(1, 2)), 3],
  ["another kind", (run: ExportedRun) => Object.assign(run.entries[2] ?? {}, { kind: 17 }), 3],
  ["another run's id", (run: ExportedRun) => Object.assign(run, { runId: newId("run") }), 1],
  ["nothing", (run: ExportedRun) => run.entries.splice(0), 1],
])("%s is found", (_what, change, entry) => {
  const run = exported();
  change(run);
  expect(verifyLedger(run)).toMatchObject({ intact: false, entry });
});

test("a tail that was cut off is found by the head, and told without it", () => {
  const run = exported();
  const head = Buffer.from(run.entries.pop()?.hash ?? []).toString("hex");
  expect(verifyLedger(run)).toMatchObject({ intact: true, ended: false });
  expect(verifyLedger(run, { head })).toMatchObject({ intact: false, entry: 3 });
});

test("what follows an end is found although its hashes are right", () => {
  expect(verifyLedger(exported([...bodies, ...bodies.slice(2, 3)]))).toMatchObject({ intact: false, entry: 5 });
});
