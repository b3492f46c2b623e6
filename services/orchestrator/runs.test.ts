import { create, fromJson, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { durationFromMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import type { RunEvent } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import { BatchAction, type Run, type RunService, RunState, StepState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FakeTools } from "../../test/support/fake-tools.ts";
import {
  migrateOrchestrator,
  newSession,
  reasonOf,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
let home: TestOrchestrator;
let runs: Client<typeof RunService>;
const principal = testPrincipal();

const echoTools = () =>
  new FakeTools()
    .add("echo", ({ arguments: args }) => ({ text: String(args.text) }))
    .add("broken", () => {
      throw new Error("it broke");
    }, []);

beforeAll(async () => {
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
  home = await startTestOrchestrator({ databaseUrl: database.url, tools: echoTools(), keepaliveMs: 200 }, principal);
  ({ runs } = home);
});
afterAll(async () => {
  await home.stop();
  await database.drop();
});

const ref = (path: string): JsonObject => ({ $ref: path });

/** A graph from its JSON. */
function graph(name: string, ...steps: JsonObject[]) {
  return { case: "graph" as const, value: fromJson(GraphSchema, { name, steps }) };
}
const echo = (name: string, text: JsonValue): JsonObject => ({ name, tool: { tool: "echo", arguments: { text } } });

const pair = graph("pair", echo("first", ref("input.text")), echo("second", ref("steps.first.output.text")));
const asking = graph(
  "asking",
  { name: "ok", approval: { prompt: "May I?" } },
  echo("after", ref("steps.ok.output.by")),
);
const waiting = graph("waiting", { name: "go", signal: { signal: "go" } });

const value = (json: JsonValue): Value => fromJson(ValueSchema, json);
const json = (message: Value | undefined): JsonValue | undefined =>
  message === undefined ? undefined : toJson(ValueSchema, message);
const wait = durationFromMs(10_000);

async function start(definition: ReturnType<typeof graph>, input: JsonValue = null, labels = {}): Promise<Run> {
  const { run } = await runs.startRun({ definition, input: value(input), labels });
  if (run === undefined) throw new Error("no run");
  return run;
}

async function watch(runId: string, afterSeq = 0n): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const { event } of runs.watchRun({ runId, afterSeq })) if (event !== undefined) events.push(event);
  return events;
}

test("a run is started, waited for, shown with its steps, and watched from any number on", async () => {
  const { run: brief } = await runs.startRun({
    definition: pair,
    input: value({ text: "hello" }),
    labels: { a: "b" },
    wait,
  });
  expect(brief).toMatchObject({ name: "pair", state: RunState.SUCCEEDED, labels: { a: "b" }, steps: [] });
  expect(json(brief?.output)).toEqual({ second: { text: "hello" } });
  const runId = brief?.runId ?? "";
  const { run } = await runs.getRun({ runId });
  expect(run).toMatchObject({ lastSeq: brief?.lastSeq, endedAt: { seconds: brief?.endedAt?.seconds } });
  expect(json(run?.input)).toEqual({ text: "hello" });
  expect(json(run?.output)).toEqual({ second: { text: "hello" } });
  expect(run?.steps.map(({ name, state, attempt }) => [name, state, attempt])).toEqual([
    ["first", StepState.SUCCEEDED, 1],
    ["second", StepState.SUCCEEDED, 1],
  ]);
  expect(run?.pins?.tools.map(({ tool }) => tool)).toEqual(["echo"]);
  expect(run?.pins?.definitionDigest).toMatch(/^sha256:[0-9a-f]{64}$/);
  expect(run?.graph?.steps).toHaveLength(2);
  expect(run?.budget?.maxSteps).toBe(10_000);
  expect(run?.ledgerHead).toMatch(/^[0-9a-f]{64}$/);

  const events = await watch(runId);
  expect(events.map(({ body }) => body.case).filter((name) => name !== "stepStarted")).toEqual([
    "runAccepted",
    "runStarted",
    "stepEnded",
    "stepEnded",
    "runEnded",
  ]);
  expect(events.every((event) => event.requestId.startsWith("req_") && event.traceId.length === 32)).toBe(true);
  const middle = events[2]?.seq ?? 0n;
  expect(await watch(runId, middle)).toEqual(events.slice(3));
  expect(await watch(runId, run?.lastSeq ?? 0n)).toEqual([]);
});

test("a run is watched while it goes on, from another process, too", async () => {
  const other = await startTestOrchestrator(
    { databaseUrl: database.url, takesShards: false, keepaliveMs: 200 },
    principal,
  );
  try {
    const { runId } = await start(waiting);
    const seen: (string | undefined)[] = [];
    const watching = (async () => {
      for await (const { event } of other.runs.watchRun({ runId })) seen.push(event?.body.case);
    })();
    await expect.poll(() => seen).toContain("stepWaiting");
    await expect.poll(() => seen).toContain(undefined);
    const { seq } = await other.runs.signalRun({ runId, signal: "go", payload: value({ n: 1 }) });
    expect(seq).toBeGreaterThan(0n);
    await watching;
    expect(seen.filter((name) => name !== undefined).slice(-3)).toEqual(["signalReceived", "stepEnded", "runEnded"]);
    const { run } = await other.runs.getRun({ runId, wait });
    expect(json(run?.output)).toEqual({ go: { n: 1 } });
  } finally {
    await other.stop();
  }
});

test("a person approves, once; the same again is answered alike, another decision is refused", async () => {
  const { runId } = await start(asking);
  await expect.poll(async () => (await runs.getRun({ runId })).run?.state).toBe(RunState.WAITING);
  expect((await runs.getRun({ runId })).run?.steps[0]?.wait?.reason).toEqual({ case: "approval", value: "May I?" });
  expect(await reasonOf(runs.decideApproval({ runId, step: "nosuch", approved: true }))).toBe("STEP_NOT_FOUND");
  const { step } = await runs.decideApproval({ runId, step: "ok", approved: true, reason: "fine" });
  expect(step).toMatchObject({ name: "ok", state: StepState.SUCCEEDED });
  expect(json(step?.output)).toMatchObject({ approved: true, reason: "fine" });
  const { run } = await runs.getRun({ runId, wait });
  expect(run?.state).toBe(RunState.SUCCEEDED);
  const events = await watch(runId);
  expect(events.map(({ body }) => body.case)).toContain("approvalRequested");
  expect(events.map(({ body }) => body.case)).toContain("approvalDecided");
});

test("a step that fails for good fails the run, and says which and why", async () => {
  const once = graph("once", {
    name: "breaks",
    retry: { max_attempts: 1 },
    tool: { tool: "broken", arguments: {} },
  });
  const { run: brief } = await runs.startRun({ definition: once, wait });
  expect(brief).toMatchObject({ state: RunState.FAILED, error: { step: "breaks" } });
  const { run } = await runs.getRun({ runId: brief?.runId ?? "" });
  expect(run).toMatchObject({ state: RunState.FAILED, error: { step: "breaks" } });
  expect(run?.steps[0]).toMatchObject({ state: StepState.FAILED, attempt: 1 });
  const { runs: listed } = await runs.listRuns({ filter: { runIds: [run?.runId ?? ""] } });
  expect(listed[0]).toMatchObject({ state: RunState.FAILED, error: { step: "breaks" } });
  expect((await watch(run?.runId ?? "")).at(-1)?.body).toMatchObject({
    case: "runEnded",
    value: { outcome: { case: "error" } },
  });
});

test("lists are filtered and paged, newest first, and leave out what is large", async () => {
  const started: string[] = [];
  for (let index = 0; index < 5; index += 1) started.push((await start(pair, { text: "x" }, { list: "five" })).runId);
  const filter = { labels: { list: "five" } };
  const first = await runs.listRuns({ filter, pageSize: 3 });
  const second = await runs.listRuns({ filter, pageSize: 3, pageToken: first.nextPageToken });
  expect([...first.runs, ...second.runs].map(({ runId }) => runId)).toEqual(started.toReversed());
  expect(second.nextPageToken).toBe("");
  expect(first.runs[0]).toMatchObject({ name: "pair", steps: [], labels: { list: "five" } });
  expect(first.runs[0]?.input).toBeUndefined();
  const other = { filter: { labels: { list: "six" } }, pageToken: first.nextPageToken };
  expect(await reasonOf(runs.listRuns(other))).toBe("INVALID_PAGE_TOKEN");
  for (const runId of started) await runs.getRun({ runId, wait });
  const ended = await runs.listRuns({ filter: { ...filter, states: [RunState.SUCCEEDED] } });
  expect(ended.runs).toHaveLength(5);
  expect((await runs.listRuns({ filter: { ...filter, states: [RunState.FAILED] } })).runs).toEqual([]);
  expect((await runs.listRuns({ filter: { ...filter, name: "nosuch" } })).runs).toEqual([]);
  const after = ended.runs[2]?.createdAt;
  expect(after).toBeDefined();
  if (after === undefined) return;
  expect((await runs.listRuns({ filter: { ...filter, createdAfter: after } })).runs).toHaveLength(3);
  expect((await runs.listRuns({ filter: { ...filter, createdBefore: after } })).runs).toHaveLength(2);
});

test("a turn is a run: it is shown, listed, watched and cancelled here, and nothing else", async () => {
  const sessionId = await newSession(home.sessions);
  const { turn } = await home.sessions.sendTurn({ sessionId, text: 'call echo {"text":"hi"}' });
  const runId = turn?.turnId ?? "";
  const { run } = await runs.getRun({ runId, wait });
  expect(run).toMatchObject({ name: "assistant", state: RunState.SUCCEEDED, sessionId });
  expect(json(run?.input)).toEqual({ text: 'call echo {"text":"hi"}' });
  expect(json(run?.output)).toMatchObject({ text: expect.any(String) });
  expect(run?.steps.map(({ name, state }) => [name, state])).toEqual([
    ["model", StepState.SUCCEEDED],
    ["echo", StepState.SUCCEEDED],
    ["model", StepState.SUCCEEDED],
  ]);
  const events = await watch(runId);
  expect(events[0]?.body.case).toBe("runAccepted");
  expect(events.at(-1)?.body.case).toBe("runEnded");
  const ends = events.flatMap(({ body }) => (body.case === "stepEnded" ? [body.value.step] : []));
  expect(ends).toMatchObject([{ round: 1 }, { round: 1, call: 0 }, { round: 2 }]);
  const resumed = await watch(runId, events.find(({ body }) => body.case === "stepEnded")?.seq);
  expect(resumed).toEqual(events.slice(-resumed.length));
  expect((await runs.listRuns({ filter: { sessionId } })).runs.map((listed) => listed.runId)).toEqual([runId]);
  expect(await reasonOf(runs.signalRun({ runId, signal: "x" }))).toBe("RUN_OF_SESSION");
  expect(await reasonOf(runs.resumeRun({ runId }))).toBe("RUN_OF_SESSION");
  expect(await reasonOf(runs.deleteRun({ runId }))).toBe("RUN_OF_SESSION");
  expect(await reasonOf(runs.cancelRun({ runId }))).toBe("RUN_ENDED");

  const long = await home.sessions.sendTurn({ sessionId, text: "wait 60s" });
  const longId = long.turn?.turnId ?? "";
  await runs.cancelRun({ runId: longId });
  expect((await runs.getRun({ runId: longId, wait })).run?.state).toBe(RunState.CANCELLED);
  // Who asks again is answered alike.
  expect((await runs.cancelRun({ runId: longId })).run?.state).toBe(RunState.CANCELLED);
  await home.sessions.deleteSession({ sessionId });
  expect(await reasonOf(runs.getRun({ runId }))).toBe("RUN_NOT_FOUND");
});

test("a batch cancels what a filter finds, tells how far it is, and writes each run to the audit log", async () => {
  const started = await Promise.all(
    Array.from({ length: 30 }, async () => (await start(waiting, null, { batch: "cancel" })).runId),
  );
  const filter = { labels: { batch: "cancel" } };
  const dry: string[] = [];
  for await (const { runId, total } of runs.batchRuns({ action: BatchAction.CANCEL, filter, dryRun: true })) {
    expect(total).toBe(30n);
    if (runId !== "") dry.push(runId);
  }
  expect(dry.toSorted()).toEqual(started.toSorted());
  const before = home.audited.length;
  let last: { done: bigint; failed: bigint; total: bigint } | undefined;
  for await (const progress of runs.batchRuns({ action: BatchAction.CANCEL, filter })) last = progress;
  expect(last).toMatchObject({ runId: "", done: 30n, failed: 0n, total: 30n });
  expect(
    home.audited
      .slice(before)
      .map(({ type, resource }) => `${type} ${resource}`)
      .toSorted(),
  ).toEqual(started.map((runId) => `run.cancelled run/${runId}`).toSorted());
  for (const runId of started) expect((await runs.getRun({ runId, wait })).run?.state).toBe(RunState.CANCELLED);
  for await (const progress of runs.batchRuns({ action: BatchAction.CANCEL, filter })) expect(progress.total).toBe(0n);
});

test("ending the stream ends the batch, and asking again goes on with the rest", async () => {
  const count = 400;
  const filter = { labels: { batch: "ended" } };
  await Promise.all(Array.from({ length: count }, () => start(waiting, null, filter.labels)));
  const left = async () => {
    const states = [RunState.RUNNING, RunState.WAITING];
    let open = 0;
    for (let pageToken = ""; ; ) {
      const page = await runs.listRuns({ filter: { ...filter, states }, pageSize: 200, pageToken });
      open += page.runs.length;
      if (page.nextPageToken === "") return open;
      pageToken = page.nextPageToken;
    }
  };
  const leaving = new AbortController();
  const stream = runs.batchRuns({ action: BatchAction.CANCEL, filter }, { signal: leaving.signal });
  await expect(
    (async () => {
      for await (const _ of stream) leaving.abort();
    })(),
  ).rejects.toThrow();
  // A run ends a moment after its cancellation is stored.
  await expect.poll(left).toBeLessThan(count);
  const rest = await left();
  expect(rest).toBeGreaterThan(0);
  let messages = 0;
  let last: { done: bigint; failed: bigint } | undefined;
  const startedAt = performance.now();
  for await (const progress of runs.batchRuns({ action: BatchAction.CANCEL, filter })) {
    messages += 1;
    last = progress;
  }
  const tookMs = performance.now() - startedAt;
  expect(last?.failed).toBe(0n);
  expect(Number(last?.done)).toBeLessThanOrEqual(rest);
  // One for each 100 runs or 200 ms, and the last.
  expect(messages).toBeLessThanOrEqual(rest / 100 + tookMs / 200 + 2);
  await expect.poll(left).toBe(0);
}, 60_000);

test("one key starts one run, and is answered alike", async () => {
  const headers = { "idempotency-key": "one key" };
  const request = { definition: pair, input: value({ text: "x" }) };
  const answers = await Promise.all(Array.from({ length: 50 }, () => runs.startRun(request, { headers })));
  expect(new Set(answers.map(({ run }) => run?.runId)).size).toBe(1);
  expect(await reasonOf(runs.startRun({ definition: pair }, { headers }))).toBe("IDEMPOTENCY_KEY_REUSED");
  expect(answers[0]).toEqual(answers[49]);
});

test("what is refused is refused before anything is stored", async () => {
  const count = async () => (await runs.listRuns({ pageSize: 1 })).runs[0]?.runId;
  const before = await count();
  const cyclic = graph(
    "cyclic",
    { ...echo("a", "x"), after: [{ step: "b" }] },
    { ...echo("b", "x"), after: [{ step: "a" }] },
  );
  const cases = [
    [{ definition: cyclic }, "INVALID_GRAPH"],
    [{ definition: graph("unknown", { name: "a", tool: { tool: "nosuch" } }) }, "TOOL_NOT_FOUND"],
    [{ definition: { case: "agent", value: "nosuch" } as const }, "AGENT_NOT_FOUND"],
    [{ definition: { case: "agent", value: "assistant" } as const }, "INVALID_ARGUMENT"],
    [{ definition: pair, input: value("x".repeat(1_048_577)) }, "INVALID_ARGUMENT"],
    [{ definition: pair, labels: { a: "\0" } }, "INVALID_ARGUMENT"],
    [
      {
        definition: {
          case: "graph",
          value: create(GraphSchema, { ...pair.value, inputSchema: { type: "object", required: ["text"] } }),
        } as const,
      },
      "INVALID_ARGUMENT",
    ],
  ] as const;
  for (const [request, reason] of cases) expect(await reasonOf(runs.startRun(request))).toBe(reason);
  expect(await count()).toBe(before);
});

test("a process that has just joined starts a run as soon as another one has given it shards", async () => {
  await using stack = new AsyncDisposableStack();
  const own = await createTestDatabase();
  stack.defer(() => own.drop());
  await migrateOrchestrator(own.url);
  const startOne = async () => {
    const one = await startTestOrchestrator({ databaseUrl: own.url, tools: echoTools() }, principal);
    stack.defer(() => one.stop());
    return one;
  };
  const first = await startOne();
  await expect.poll(() => first.orchestrator.engine.shards.length).toBe(64);
  const second = await startOne();
  const { run } = await second.runs.startRun({ definition: pair, input: value({ text: "new" }), wait });
  expect(run?.state).toBe(RunState.SUCCEEDED);
});
