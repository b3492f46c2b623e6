import { create, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import {
  type ExportedRun,
  ExportedRunSchema,
  type Run,
  RunState,
  StepState,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { verifyLedger } from "../../../cli/ledger/verify-ledger.ts";
import { ledgerKeySet } from "../../../cli/ledger/verify-signature.ts";
import { FakeTools } from "../../../test/support/fake-tools.ts";
import {
  migrateOrchestrator,
  newSession,
  reasonOf,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { newId, toUuid } from "../../runtime/ids/id.ts";
import { chainHash } from "../domain/chain.ts";

const principal = testPrincipal();
const limits: Record<string, number> = {
  open_runs: 1_000,
  sessions: 100,
  concurrent_turns: 10,
  schedules: 10,
  run_retention_days: 30,
};
let server: TestDatabase;
let cadre: TestOrchestrator;
let superuser: pg.Client;
const called: string[] = [];

beforeAll(async () => {
  server = await createTestDatabase();
  await migrateOrchestrator(server.url);
  const tools = new FakeTools().add("echo", ({ arguments: args }) => {
    called.push(String(args.text));
    return { text: args.text ?? null };
  });
  cadre = await startTestOrchestrator(
    { databaseUrl: server.url, tools, previousWritersAreDead: true, limits },
    principal,
  );
  superuser = new pg.Client(server.url);
  await superuser.connect();
  await superuser.query("set search_path = orchestrator");
});
afterAll(async () => {
  await superuser.end();
  await cadre.stop();
  await server.drop();
});
beforeEach(() => {
  called.length = 0;
});

const value = (json: JsonValue): Value => fromJson(ValueSchema, json);
const echo = (name: string, text: JsonValue, more: Record<string, JsonValue> = {}): JsonValue => ({
  name,
  tool: { tool: "echo", arguments: { text } },
  ...more,
});
const ref = (path: string): JsonValue => ({ $ref: path });

const chain: JsonValue = {
  name: "chain",
  steps: [
    echo("a", ref("input")),
    {
      name: "each",
      fan_out: { over: [1, 2], tool: { tool: "echo", arguments: { text: ref("item") } } },
      after: [{ step: "a" }],
    },
    echo("b", ref("steps.a.output.text"), { after: [{ step: "each" }] }),
    echo("never", "never", { after: [{ step: "b", when: "false" }] }),
  ],
  output: { b: ref("steps.b.output.text"), each: ref("steps.each.output") },
};
const waiting: JsonValue = {
  name: "waiting",
  steps: [echo("a", "1"), { name: "go", signal: { signal: "go" }, after: [{ step: "a" }] }],
};

async function start(graph: JsonValue, input: JsonValue, labels: Record<string, string> = {}): Promise<string> {
  const definition = { case: "graph" as const, value: fromJson(GraphSchema, graph) };
  const { run } = await cadre.runs.startRun({ definition, input: value(input), labels });
  return run?.runId ?? "";
}

async function ended(runId: string): Promise<Run> {
  const { run } = await cadre.runs.getRun({ runId, wait: { seconds: 10n, nanos: 0 } });
  if (run === undefined) throw new Error("no run");
  return run;
}

async function exported(runId: string): Promise<ExportedRun> {
  const run = create(ExportedRunSchema, { runId });
  for await (const part of cadre.runs.exportRun({ runId })) run.entries.push(part);
  return run;
}

async function replayed(filter: { runIds: string[] }) {
  const results = [];
  for await (const result of cadre.runs.replayRuns({ selection: { case: "filter", value: filter } }))
    results.push(result);
  return results;
}

/** Stands for the relay, which these worlds do not have. */
async function relay(): Promise<void> {
  await superuser.query("update writer set relayed = pos");
}

describe("a ledger", () => {
  test("that was exported is verified offline, up to the head that the run shows", async () => {
    const runId = await start(chain, "hello");
    const { ledgerHead, lastSeq, pins } = await ended(runId);
    const { keys } = await cadre.runs.listLedgerKeys({});
    const report = verifyLedger(await exported(runId), { head: ledgerHead, keys: ledgerKeySet.parse({ keys }) });
    expect(report).toMatchObject({
      intact: true,
      entries: Number(lastSeq),
      head: ledgerHead,
      ended: true,
      pins: { definition: pins?.definitionDigest, tools: [{ name: "echo", digest: pins?.tools[0]?.digest }] },
      signature: { state: "verified", keyId: keys[0]?.kid },
    });
  });

  test("that was written anew with all its hashes is told by its signature, and so is one that was cut off", async () => {
    const runId = await start(chain, "hello");
    await ended(runId);
    const keys = ledgerKeySet.parse({ keys: (await cadre.runs.listLedgerKeys({})).keys });
    const rewritten = await exported(runId);
    let hash: Uint8Array = new Uint8Array(32);
    for (const entry of rewritten.entries) {
      if (entry.seq === 1n)
        entry.body = Buffer.from(Buffer.from(entry.body).toString("latin1").replace("hello", "hallo"), "latin1");
      hash = entry.hash = chainHash(hash, toUuid("run", runId), Number(entry.seq), entry.kind, entry.body);
    }
    // The control: by its hashes alone nothing is wrong with it.
    expect(verifyLedger(rewritten)).toMatchObject({ intact: true, signature: { state: "unchecked" } });
    expect(verifyLedger(rewritten, { keys })).toMatchObject({
      intact: false,
      problem: expect.stringContaining("rewritten"),
    });
    const cut = await exported(runId);
    cut.entries.pop();
    expect(verifyLedger(cut)).toMatchObject({ intact: true, ended: false, signature: { state: "none" } });
    expect(verifyLedger(cut, { keys })).toMatchObject({ intact: false, problem: "its end is not signed" });
  });

  test.each([
    ["changed", "update entry set body = set_byte(body, 9, get_byte(body, 9) # 1) where run_id = $1 and seq = 4", 4],
    ["of another kind", "update entry set kind = 14 where run_id = $1 and seq = 4", 4],
    ["gone", "delete from entry where run_id = $1 and seq = 4", 4],
  ])("with an entry that is %s is found wherever it is read", async (_what, statement, seq) => {
    const runId = await start(chain, "hello");
    await ended(runId);
    await superuser.query(statement, [toUuid("run", runId)]);
    const damaged = await exported(runId);
    expect(verifyLedger(damaged)).toMatchObject({ intact: false, entry: seq });
    expect(damaged.entries.map(({ signature }) => signature).join("")).toBe("");
    const [result] = await replayed({ runIds: [runId] });
    expect(result?.error).toMatchObject({ reason: Reason.DATA_LOSS, message: expect.stringContaining(`entry ${seq}`) });
    expect(await reasonOf(cadre.runs.forkRun({ runId, checkpoint: 1 }))).toBe("DATA_LOSS");
    expect(await reasonOf(cadre.runs.listCheckpoints({ runId }))).toBe("DATA_LOSS");
  });
});

describe("checkpoints", () => {
  test("stand behind each step that ended, with the hash there, in pages", async () => {
    const runId = await start(chain, "hello");
    await ended(runId);
    const { entries } = await exported(runId);
    const found = [];
    for (let pageToken = "", pages = 0; pages === 0 || pageToken !== ""; pages += 1) {
      const page = await cadre.runs.listCheckpoints({ runId, pageSize: 3, pageToken });
      found.push(...page.checkpoints);
      pageToken = page.nextPageToken;
    }
    expect(found.map(({ number, step }) => [number, step])).toEqual([
      [1, "a"],
      [2, "each"],
      [3, "b"],
      [4, "never"],
    ]);
    for (const { seq, version } of found) {
      expect(version).toBe(Buffer.from(entries[Number(seq) - 1]?.hash ?? []).toString("hex"));
    }
  });

  test("are not there for turns, nor for other orgs", async () => {
    const sessionId = await newSession(cadre.sessions);
    const { turn } = await cadre.sessions.sendTurn({ sessionId, text: "say hi" });
    const runId = turn?.turnId ?? "";
    expect(await reasonOf(cadre.runs.listCheckpoints({ runId }))).toBe("RUN_OF_SESSION");
    expect(await reasonOf(cadre.runs.forkRun({ runId }))).toBe("RUN_OF_SESSION");
    expect(await reasonOf(cadre.runs.listCheckpoints({ runId: newId("run") }))).toBe("RUN_NOT_FOUND");
  });
});

describe("a fork", () => {
  test("keeps what had succeeded and does the rest, with the same marks and definitions", async () => {
    const runId = await start(chain, "hello", { team: "blue" });
    const first = await ended(runId);
    called.length = 0;
    cadre.tools.redefine("echo", "Another one by now.");
    const { run } = await cadre.runs.forkRun({ runId, checkpoint: 2 });
    const fork = await ended(run?.runId ?? "");
    expect(called).toEqual(["hello"]);
    expect(fork).toMatchObject({
      state: RunState.SUCCEEDED,
      forkedFromRunId: runId,
      forkedFromCheckpoint: 2,
      labels: { team: "blue" },
    });
    expect(toJson(ValueSchema, fork.output as Value)).toEqual(toJson(ValueSchema, first.output as Value));
    expect(fork.pins).toEqual(first.pins);
    expect(fork.steps.map(({ name, state }) => [name, state])).toContainEqual(["never", StepState.SKIPPED]);
    const [result] = await replayed({ runIds: [fork.runId] });
    expect(result?.error).toBeUndefined();
    expect(result?.entries).toBe(fork.lastSeq);
  });

  test("may be given another input and other marks; from the start it does everything", async () => {
    const runId = await start(chain, "hello", { team: "blue" });
    await ended(runId);
    called.length = 0;
    const { run } = await cadre.runs.forkRun({ runId, input: value("bye"), labels: { team: "red" } });
    const fork = await ended(run?.runId ?? "");
    expect(called.sort()).toEqual(["1", "2", "bye", "bye"]);
    expect(fork.labels).toEqual({ team: "red" });
    expect(toJson(ValueSchema, fork.output as Value)).toMatchObject({ b: "bye" });
  });

  test("of an open run, and one whose request is repeated with its key, is one run", async () => {
    const runId = await start(waiting, null);
    await expect.poll(async () => (await cadre.runs.listCheckpoints({ runId })).checkpoints.length).toBe(1);
    const headers = { "idempotency-key": "once" };
    const forks = await Promise.all(
      Array.from({ length: 5 }, () => cadre.runs.forkRun({ runId, checkpoint: 1 }, { headers })),
    );
    const ids = new Set(forks.map(({ run }) => run?.runId));
    expect(ids.size).toBe(1);
    const fork = [...ids][0] ?? "";
    await cadre.runs.signalRun({ runId: fork, signal: "go", payload: value(1) });
    expect((await ended(fork)).state).toBe(RunState.SUCCEEDED);
    expect((await cadre.runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
    expect(await reasonOf(cadre.runs.forkRun({ runId, checkpoint: 0 }, { headers }))).toBe("IDEMPOTENCY_KEY_REUSED");
  });

  test("from a checkpoint that is not there, or with an input that does not fit, is refused", async () => {
    const runId = await start({ ...(chain as object), input_schema: { type: "string" } } as JsonValue, "x");
    await ended(runId);
    expect(await reasonOf(cadre.runs.forkRun({ runId, checkpoint: 5 }))).toBe("CHECKPOINT_NOT_FOUND");
    expect(await reasonOf(cadre.runs.forkRun({ runId, input: value(7) }))).toBe("INVALID_ARGUMENT");
  });

  test("has values of any size from the run that it was forked from", async () => {
    const large = "x".repeat(400_000);
    const runId = await start(chain, large);
    await ended(runId);
    const { run } = await cadre.runs.forkRun({ runId, checkpoint: 1 });
    const fork = await ended(run?.runId ?? "");
    expect(fork.state).toBe(RunState.SUCCEEDED);
    expect((await replayed({ runIds: [fork.runId] }))[0]?.error).toBeUndefined();
  });
});

test("an open run whose tools have changed does not replay, and the diff says how; one that ended does", async () => {
  const [open, closed] = [await start(waiting, null), await start(chain, "x")];
  await ended(closed);
  await expect.poll(async () => (await cadre.runs.listCheckpoints({ runId: open })).checkpoints.length).toBe(1);
  expect((await replayed({ runIds: [open, closed] })).map(({ error }) => error)).toEqual([undefined, undefined]);
  cadre.tools.redefine("echo", "Says something else.");
  const results = new Map((await replayed({ runIds: [open, closed] })).map((result) => [result.runId, result]));
  expect(results.get(closed)?.error).toBeUndefined();
  expect(results.get(open)?.error?.reason).toBe(Reason.NON_DETERMINISTIC);
  expect(results.get(open)?.diff).toContainEqual('+ echo: "description": "Says something else.",');
});

describe("of a run that is deleted, or older than its org keeps runs,", () => {
  const parent: JsonValue = {
    name: "parent",
    steps: [{ name: "below", child_run: { graph: { name: "child", steps: [echo("only", "x")] } } }],
  };

  test("a receipt is left, and of its children", async () => {
    const runId = await start(parent, null);
    const before = await ended(runId);
    const { runs: children } = await cadre.runs.listRuns({ filter: { parentRunId: runId } });
    const child = children[0]?.runId ?? "";
    await relay();
    await cadre.runs.deleteRun({ runId });
    const { run } = await cadre.runs.getRun({ runId });
    expect(run).toMatchObject({
      runId,
      name: "parent",
      state: RunState.SUCCEEDED,
      lastSeq: before.lastSeq,
      ledgerHead: before.ledgerHead,
      pins: before.pins,
      steps: [],
      pruned: true,
    });
    expect(run?.output).toBeUndefined();
    expect((await cadre.runs.getRun({ runId: child })).run).toMatchObject({ name: "child", pruned: true });
    const { rows } = await superuser.query("select 1 from entry where run_id = any($1)", [
      [runId, child].map((id) => toUuid("run", id)),
    ]);
    expect(rows).toEqual([]);
    expect(await reasonOf(cadre.runs.forkRun({ runId }))).toBe("RUN_NOT_FOUND");
    const { runs } = await cadre.runs.listRuns({ filter: { runIds: [runId, child] } });
    expect(runs).toEqual([]);
  });

  test("an open one is refused, and one whose facts are not on the bus stays", async () => {
    const open = await start(waiting, null);
    expect(await reasonOf(cadre.runs.deleteRun({ runId: open }))).toBe("RUN_OPEN");
    const runId = await start(chain, "x");
    await ended(runId);
    expect(await reasonOf(cadre.runs.deleteRun({ runId }))).toBe("BACKPRESSURE");
    expect((await ended(runId)).pruned).toBe(false);
  });

  test("a sweep leaves what is younger than the org's limit", async () => {
    const [old, young] = [await start(chain, "old"), await start(chain, "young")];
    await Promise.all([ended(old), ended(young)]);
    await relay();
    const age = "update run set ended_at = ended_at - make_interval(days => $2) where run_id = $1";
    await superuser.query(age, [toUuid("run", old), 31]);
    await superuser.query(age, [toUuid("run", young), 29]);
    const { retention } = cadre.orchestrator;
    expect(await retention.sweep()).toBe(1);
    expect([(await ended(old)).pruned, (await ended(young)).pruned]).toEqual([true, false]);
    limits.run_retention_days = 7;
    expect(await retention.sweep()).toBe(1);
    expect((await ended(young)).pruned).toBe(true);
    await superuser.query("update run_receipt set ended_at = ended_at - interval '400 days' where run_id = $1", [
      toUuid("run", old),
    ]);
    await retention.sweep();
    expect(await reasonOf(cadre.runs.getRun({ runId: old }))).toBe("RUN_NOT_FOUND");
  });
});
