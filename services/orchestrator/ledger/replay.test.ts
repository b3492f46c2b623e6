import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { type ExportedRun, ExportedRunSchema, ExportRunResponseSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { historyTools, recordHistories } from "../../../test/histories/scenarios.ts";
import {
  migrateOrchestrator,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import { chainHash, emptyChain } from "../domain/chain.ts";
import type { Entry, EntryBody } from "../domain/entry.ts";
import { wordsOf } from "../domain/replay-problem.ts";
import { decodeEntry, encodeEntry, entryKind } from "../store/entry-codec.ts";

const stored = join(import.meta.dirname, "..", "..", "..", "test", "histories");
const histories = new Map<string, ExportedRun>();
const principal = testPrincipal();
const revoked = new Set<string>();
let server: TestDatabase;
let cadre: TestOrchestrator;

beforeAll(async () => {
  for (const version of await readdir(stored, { withFileTypes: true })) {
    if (!version.isDirectory()) continue;
    for (const name of await readdir(join(stored, version.name))) {
      const text = await readFile(join(stored, version.name, name), "utf8");
      histories.set(
        `${version.name}/${name.replace(".json", "")}`,
        fromJson(ExportedRunSchema, JSON.parse(text) as JsonValue),
      );
    }
  }
  server = await createTestDatabase();
  await migrateOrchestrator(server.url);
  const options = { databaseUrl: server.url, tools: historyTools(), revoked, previousWritersAreDead: true };
  cadre = await startTestOrchestrator(options, principal);
});
afterAll(async () => {
  await cadre.stop();
  await server.drop();
});

async function replay(exported: ExportedRun) {
  for await (const result of cadre.runs.replayRuns({ selection: { case: "exported", value: exported } })) return result;
  throw new Error("no result");
}

function historyOf(name: string): ExportedRun {
  const run = histories.get(`v1/${name}`);
  if (run === undefined) throw new Error(`no history ${name}`);
  return run;
}

function entriesOf({ entries }: ExportedRun): Entry[] {
  return entries.map(({ body }) => decodeEntry(body));
}

/** A history of other entries whose chain is right, so that only a replay can notice. */
function exportOf(runId: string, entries: readonly Entry[]): ExportedRun {
  let chain = emptyChain;
  return create(ExportedRunSchema, {
    runId,
    entries: entries.map((entry, index) => {
      const [body, kind, seq] = [encodeEntry(entry), entryKind[entry.body.type], index + 1];
      chain = chainHash(chain, toUuid("run", runId), seq, kind, body);
      return create(ExportRunResponseSchema, {
        seq: BigInt(seq),
        kind,
        body: Uint8Array.from(body),
        hash: Uint8Array.from(chain),
      });
    }),
  });
}

test("every kind of history that is made now replays", { timeout: 120_000 }, async () => {
  const names: string[] = [];
  for await (const { name, run } of recordHistories({ cadre, revoked, subject: principal.subject })) {
    const result = await replay(run);
    expect({ name, error: result.error?.message, diff: result.diff }).toEqual({ name, error: undefined, diff: [] });
    expect(result.entries).toBe(BigInt(run.entries.length));
    names.push(name);
  }
  // Whoever adds a kind of history stores it, too.
  expect([...histories.keys()].filter((name) => name.startsWith("v1/")).sort()).toEqual(
    names.map((name) => `v1/${name}`).sort(),
  );
});

test("every stored history of every version replays unchanged, and executes nothing", async () => {
  const calls = cadre.tools.requests.length;
  expect(histories.size).toBeGreaterThanOrEqual(12);
  for (const [name, run] of histories) {
    const { error, entries } = await replay(run);
    expect({ name, error, entries }).toEqual({ name, error: undefined, entries: BigInt(run.entries.length) });
  }
  expect(cadre.tools.requests.length).toBe(calls);
});

/**
 * Changes after which a history is one that might have been made: the order of
 * what runs at once, a message that came twice, an end that is not there yet,
 * and a result that came in while its run was being parked.
 */
const alsoPossible: ReadonlySet<string> = new Set([
  "fan-out: swapped 3",
  "fan-out: swapped 4",
  "fan-out: swapped 5",
  "fan-out: swapped 6",
  "fan-out-that-fails: removed 5",
  "forked-behind-a-branch: swapped 5",
  "parked-and-resumed: doubled 4",
  "parked-and-resumed: removed 7",
  "signalled: doubled 5",
  "turn-with-tools: swapped 5",
  "turn-with-tools: swapped 6",
  "turn-with-tools: swapped 7",
]);

test("each entry removed, doubled, or swapped with the next one is noticed, and nothing is executed", {
  timeout: 60_000,
}, async () => {
  const calls = cadre.tools.requests.length;
  const unnoticed: string[] = [];
  let noticed = 0;
  for (const [name, { runId, entries: parts }] of histories) {
    const entries = entriesOf({ entries: parts } as ExportedRun);
    for (const index of entries.keys()) {
      const [before, after] = [entries.slice(0, index), entries.slice(index + 1)];
      const [own, next] = [entries[index] as Entry, after[0]];
      const changes: [string, Entry[]][] = [["doubled", [...before, own, own, ...after]]];
      if (next !== undefined) {
        changes.push(["removed", [...before, ...after]], ["swapped", [...before, next, own, ...after.slice(1)]]);
      }
      for (const [what, changed] of changes) {
        const { error, diff } = await replay(exportOf(runId, changed));
        if (error?.reason === Reason.NON_DETERMINISTIC && diff.length === 2) noticed += 1;
        else unnoticed.push(`${name.slice(3)}: ${what} ${index + 1}`);
      }
    }
  }
  expect(unnoticed.filter((change) => !alsoPossible.has(change))).toEqual([]);
  expect(noticed).toBeGreaterThan(550);
  expect(cadre.tools.requests.length).toBe(calls);
});

/** Changes the first entry of a type that `where` accepts. */
function changed<T extends EntryBody["type"]>(
  name: string,
  type: T,
  change: (body: Extract<EntryBody, { type: T }>) => Partial<Extract<EntryBody, { type: T }>>,
  where: (body: Extract<EntryBody, { type: T }>) => boolean = () => true,
): ExportedRun {
  const { runId } = historyOf(name);
  const entries = entriesOf(historyOf(name));
  const index = entries.findIndex(({ body }) => body.type === type && where(body as never));
  const entry = entries[index];
  if (entry === undefined) throw new Error(`${name} has no such entry`);
  entries[index] = { ...entry, body: { ...entry.body, ...change(entry.body as never) } as EntryBody };
  return exportOf(runId, entries);
}
const inline = (value: JsonValue) => ({ value: value as never, blob: undefined });
const success = "graph.step.succeeded";

describe("a history is noticed in which", () => {
  test.each<[string, () => ExportedRun]>([
    [
      "a gate's result leads elsewhere",
      () => changed("branches", success, () => ({ output: inline({ text: "right" }) })),
    ],
    [
      "a result is not what the output was made of",
      () =>
        changed(
          "sequence",
          success,
          () => ({ output: inline({ text: "other" }) }),
          ({ place }) => place.name === "c",
        ),
    ],
    [
      "the output is another",
      () => changed("sequence", "graph.ended", () => ({ end: { state: "succeeded", output: inline("made up") } })),
    ],
    ["a step has another id", () => changed("sequence", success, () => ({ stepId: newId("stp") }))],
    ["a step is another one", () => changed("sequence", success, ({ place }) => ({ place: { ...place, name: "c" } }))],
    [
      "a step is none of the graph",
      () => changed("sequence", success, ({ place }) => ({ place: { ...place, name: "x" } })),
    ],
    [
      "attempts are left out",
      () => changed("given-up", "graph.step.failed", ({ attempt }) => ({ attempt: attempt + 1 })),
    ],
    [
      "a last attempt is tried again",
      () =>
        changed(
          "given-up",
          "graph.step.failed",
          () => ({ retryAtMs: Date.now() }),
          ({ attempt }) => attempt === 3,
        ),
    ],
    [
      "a retry comes too late",
      () => changed("given-up", "graph.step.failed", ({ retryAtMs }) => ({ retryAtMs: (retryAtMs ?? 0) + 60_000 })),
    ],
    [
      "a timer is due later",
      () => changed("timer", "step.waiting", () => ({ wait: { for: "timer", dueAtMs: Date.now() + 9e9 } })),
    ],
    [
      "another person is said to have approved",
      () => changed("approved", success, () => ({ output: inline({ approved: true, by: "me", reason: "because" }) })),
    ],
    ["a refusal became an approval", () => changed("refused", "approval.decided", () => ({ approved: true }))],
    [
      "a person was asked something else",
      () =>
        changed("approved", "step.waiting", () => ({
          wait: { for: "approval", prompt: "Lunch?", expiresAtMs: undefined },
        })),
    ],
    ["a message is another one", () => changed("signalled", "signal.received", () => ({ payload: inline({ n: 9 }) }))],
    [
      "a step takes another message",
      () => changed("signalled", success, ({ signalSeq }) => ({ signalSeq: signalSeq - 1 })),
    ],
    [
      "a child is another run",
      () => changed("parent", "step.waiting", () => ({ wait: { for: "child", runId: newId("run") } })),
    ],
    [
      "an element is beyond its list",
      () =>
        changed(
          "fan-out",
          success,
          ({ place }) => ({ place: { ...place, index: 9 } }),
          ({ place }) => place.index === 3,
        ),
    ],
    [
      "a fan-out gave something else",
      () =>
        changed(
          "fan-out",
          success,
          () => ({ output: inline([1]) }),
          ({ place }) => place.name === "none",
        ),
    ],
    ["an agent's answer is made up", () => changed("agent", success, () => ({ output: inline({ text: "made up" }) }))],
    ["a model's answer is made up", () => changed("model", success, () => ({ output: inline({ text: "made up" }) }))],
    ["a result is carried from nowhere", () => changed("sequence", success, () => ({ carried: true }))],
    ["a tool is not held on to", () => changed("sequence", "graph.started", () => ({ tools: [] }))],
    [
      "a cancelled run failed",
      () =>
        changed("cancelled-with-compensation", "graph.ended", () => ({
          end: { state: "failed", error: { reason: "INTERNAL", message: "" }, step: "" },
        })),
    ],
    [
      "a failure has another reason",
      () => changed("compensated-failure", "run.failing", () => ({ error: { reason: "INTERNAL", message: "" } })),
    ],
    [
      "a turn ends with an answer that nobody gave",
      () => changed("turn", "run.ended", () => ({ end: { state: "succeeded", answer: "x" } })),
    ],
    ["a turn's step has another id", () => changed("turn", "step.started", () => ({ stepId: newId("stp") }))],
    [
      "a turn ends although it goes on",
      () =>
        changed("turn-with-tools", "step.succeeded", () => ({
          result: { kind: "model", text: "x", toolCalls: [], inputTokens: 0, outputTokens: 0 },
        })),
    ],
  ])("%s", async (_what, make) => {
    const calls = cadre.tools.requests.length;
    const { error, diff, entries } = await replay(make());
    expect(error?.reason).toBe(Reason.NON_DETERMINISTIC);
    expect(diff).toEqual([expect.stringMatching(/^- entry \d+: ./), expect.stringMatching(/^\+ entry \d+: ./)]);
    expect(diff[0]).toContain(`entry ${entries + 1n}`);
    expect(cadre.tools.requests.length).toBe(calls);
  });
});

test("a history whose chain is broken is DATA_LOSS, and the entry is named", async () => {
  const run = historyOf("sequence");
  const entries = run.entries.map((part, index) =>
    index === 3 ? { ...part, body: part.body.map((byte, place) => (place === 20 ? byte ^ 1 : byte)) } : part,
  );
  const { error, diff } = await replay({ ...run, entries });
  expect(error).toMatchObject({ reason: Reason.DATA_LOSS, message: expect.stringContaining("entry 4") });
  expect(diff).toEqual([]);
});

test("what an entry is, in words, is short and carries nothing", () => {
  for (const run of histories.values()) {
    for (const { body } of entriesOf(run)) expect(wordsOf(body)).toMatch(/^[a-z.]+[^\n]{0,100}$/);
  }
});
