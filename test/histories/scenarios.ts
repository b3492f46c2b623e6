import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { durationFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import {
  type ExportedRun,
  ExportedRunSchema,
  type ForkRunRequestSchema,
  RunState,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { FakeTools } from "../support/fake-tools.ts";
import { endsTurn, newSession, readEvents, type TestOrchestrator } from "../support/orchestrator.ts";

/** What histories are recorded in: an orchestrator with `historyTools`. */
export interface HistoryWorld {
  readonly cadre: TestOrchestrator;
  /** Subjects that credentials refuse. */
  readonly revoked: Set<string>;
  readonly subject: string;
}

/** A run that was really made. */
export interface RecordedHistory {
  readonly name: string;
  readonly run: ExportedRun;
}

/** The tools that the graphs of histories call. */
export function historyTools(): FakeTools {
  let failures = 0;
  return new FakeTools()
    .add("echo", ({ arguments: args }) => ({ text: args.text ?? null }))
    .add("undo", ({ arguments: args }) => ({ undone: args.text ?? null }))
    .add("broken", () => {
      throw new Error("out of order");
    })
    .add("flaky", ({ arguments: args }) => {
      failures += 1;
      if (failures < 3) throw new Error("not yet");
      return { text: args.text ?? null };
    });
}

const ref = (path: string): JsonValue => ({ $ref: path });
const echo = (name: string, text: JsonValue, more: Record<string, JsonValue> = {}): JsonValue => ({
  name,
  tool: { tool: "echo", arguments: { text } },
  ...more,
});
const once: JsonValue = { max_attempts: 1 };

const branches: JsonValue = {
  name: "branches",
  steps: [
    echo("pick", ref("input")),
    echo("left", "L", { after: [{ step: "pick", when: 'output.text == "left"' }] }),
    echo("right", "R", { after: [{ step: "pick", when: 'output.text == "right"' }] }),
    echo("beyond", "never", { after: [{ step: "right" }] }),
    echo(
      "join",
      { l: ref("steps.left.output"), r: ref("steps.right.output") },
      {
        after: [{ step: "left" }, { step: "right" }],
      },
    ),
  ],
  output: ref("steps.join.output"),
};

const undoable: JsonValue = {
  name: "undoable",
  steps: [
    echo("first", "1", { compensation: { tool: "undo", arguments: { text: ref("output.text") } } }),
    echo("second", ref("steps.first.output.text"), { compensation: { tool: "undo", arguments: { text: "second" } } }),
    { name: "last", after: [{ step: "second" }], tool: { tool: "broken", arguments: { text: "x" } }, retry: once },
  ],
};

/** Makes one run of each kind, and gives their histories: of every kind of step, and of every way to end. */
export async function* recordHistories(world: HistoryWorld): AsyncGenerator<RecordedHistory> {
  const { cadre, revoked, subject } = world;
  const { runs, sessions } = cadre;

  const start = async (graph: JsonValue, input: JsonValue = null): Promise<string> => {
    const definition = { case: "graph" as const, value: fromJson(GraphSchema, graph) };
    const { run } = await runs.startRun({ definition, input: fromJson(ValueSchema, input) });
    return run?.runId ?? "";
  };
  const until = async (runId: string, ...states: readonly RunState[]): Promise<void> => {
    for await (const { event } of runs.watchRun({ runId })) {
      if (event === undefined) continue;
      const { run } = await runs.getRun({ runId });
      if (run !== undefined && states.includes(run.state)) return;
    }
    const { run } = await runs.getRun({ runId });
    if (run === undefined || !states.includes(run.state)) throw new Error(`${runId} is ${RunState[run?.state ?? 0]}`);
  };
  const waits = async (runId: string): Promise<void> => {
    for await (const { event } of runs.watchRun({ runId })) {
      if (event?.body.case === "stepWaiting" || event?.body.case === "approvalRequested") return;
    }
  };
  const exported = async (name: string, runId: string, state?: RunState): Promise<RecordedHistory> => {
    if (state !== undefined) await until(runId, state);
    const run = create(ExportedRunSchema, { runId });
    for await (const part of runs.exportRun({ runId })) run.entries.push(part);
    return { name, run };
  };
  const fork = async (request: Parameters<typeof create<typeof ForkRunRequestSchema>>[1] & { runId: string }) =>
    (await runs.forkRun(request as never)).run?.runId ?? "";

  const sequence = await start(
    {
      name: "sequence",
      steps: [echo("a", ref("input.word")), echo("b", ref("steps.a.output.text")), echo("c", ref("steps.b.output"))],
    },
    { word: "hello" },
  );
  yield await exported("sequence", sequence, RunState.SUCCEEDED);
  const left = await start(branches, "left");
  yield await exported("branches", left, RunState.SUCCEEDED);
  yield await exported("branch-that-joins-nothing", await start(branches, "neither"), RunState.SUCCEEDED);

  const trying = (name: string, tool: string): JsonValue => ({
    name,
    steps: [
      {
        name: "try",
        tool: { tool, arguments: { text: "x" } },
        retry: { max_attempts: 3, initial_delay: "0.1s", max_delay: "0.1s" },
      },
    ],
  });
  yield await exported("retried", await start(trying("retried", "flaky")), RunState.SUCCEEDED);
  yield await exported("given-up", await start(trying("given-up", "broken")), RunState.FAILED);
  yield await exported("compensated-failure", await start(undoable), RunState.FAILED);

  const cancelled = await start({
    name: "cancelled",
    steps: [
      echo("done", "1", { compensation: { tool: "undo", arguments: { text: ref("output.text") } } }),
      { name: "never", after: [{ step: "done" }], signal: { signal: "go" } },
    ],
  });
  await waits(cancelled);
  await runs.cancelRun({ runId: cancelled, reason: "enough", compensate: true });
  yield await exported("cancelled-with-compensation", cancelled, RunState.CANCELLED);

  const asking = (refusal: boolean): JsonValue => ({
    name: "asking",
    steps: [
      { name: "ok", approval: { prompt: { question: ref("input") }, continue_on_refusal: refusal } },
      echo("yes", ref("steps.ok.output.by"), { after: [{ step: "ok", when: "output.approved" }] }),
      echo("no", ref("steps.ok.output.reason"), { after: [{ step: "ok", when: "!output.approved" }] }),
    ],
  });
  for (const [name, refusal, approved, state] of [
    ["approved", false, true, RunState.SUCCEEDED],
    ["refused", false, false, RunState.FAILED],
    ["refused-and-gone-on", true, false, RunState.SUCCEEDED],
  ] as const) {
    const runId = await start(asking(refusal), "May I?");
    await waits(runId);
    await runs.decideApproval({ runId, step: "ok", approved, reason: "because" });
    yield await exported(name, runId, state);
  }

  const signalled = await start({
    name: "signalled",
    steps: [
      { name: "first", signal: { signal: "go" } },
      { name: "second", after: [{ step: "first" }], signal: { signal: "kept" } },
    ],
  });
  await waits(signalled);
  await runs.signalRun({ runId: signalled, signal: "kept", payload: fromJson(ValueSchema, { n: 2 }) });
  await runs.signalRun({ runId: signalled, signal: "go", payload: fromJson(ValueSchema, { n: 1 }) });
  yield await exported("signalled", signalled, RunState.SUCCEEDED);
  yield await exported(
    "expired",
    await start({ name: "expired", steps: [{ name: "wait", signal: { signal: "go", expires_after: "0.2s" } }] }),
    RunState.FAILED,
  );
  yield await exported(
    "timer",
    await start({
      name: "timer",
      steps: [{ name: "nap", timer: { duration: "0.2s" } }, echo("up", ref("steps.nap.output.at"))],
    }),
    RunState.SUCCEEDED,
  );
  yield await exported(
    "fan-out",
    await start(
      {
        name: "fan-out",
        steps: [
          {
            name: "each",
            fan_out: { over: ref("input"), concurrency: 2, tool: { tool: "echo", arguments: { text: ref("item") } } },
          },
          { name: "none", fan_out: { over: [], tool: { tool: "echo", arguments: { text: ref("item") } } } },
          echo("sum", ref("steps.each.output")),
        ],
      },
      ["a", "b", "c", "d"],
    ),
    RunState.SUCCEEDED,
  );
  yield await exported(
    "fan-out-that-fails",
    await start({
      name: "fan-out-that-fails",
      steps: [
        {
          name: "each",
          retry: once,
          fan_out: { over: [1, 2], tool: { tool: "broken", arguments: { text: ref("index") } } },
        },
      ],
    }),
    RunState.FAILED,
  );

  const parent = await start(
    {
      name: "parent",
      steps: [
        {
          name: "below",
          child_run: { graph: { name: "child", steps: [echo("only", ref("input"))] }, input: ref("input") },
        },
      ],
    },
    "word",
  );
  yield await exported("parent", parent, RunState.SUCCEEDED);
  const { runs: children } = await runs.listRuns({ filter: { parentRunId: parent } });
  yield await exported("child", children[0]?.runId ?? "", RunState.SUCCEEDED);

  yield await exported(
    "model",
    await start({
      name: "model",
      steps: [{ name: "ask", model: { prompt: "say hello there" } }, echo("tell", ref("steps.ask.output.text"))],
    }),
    RunState.SUCCEEDED,
  );
  await cadre.agents.registerAgent({ definition: { name: "worker", model: "scripted", tools: ["echo"] } });
  yield await exported(
    "agent",
    await start({
      name: "agent",
      steps: [{ name: "work", agent: { agent: "worker", message: 'call echo {"text":"hi"}\nsay done' } }],
    }),
    RunState.SUCCEEDED,
  );

  yield await exported("forked", await fork({ runId: sequence, checkpoint: 1 }), RunState.SUCCEEDED);
  yield await exported("forked-at-the-start", await fork({ runId: left, checkpoint: 0 }), RunState.SUCCEEDED);
  yield await exported("forked-behind-a-branch", await fork({ runId: left, checkpoint: 3 }), RunState.SUCCEEDED);
  yield await exported("forked-at-the-end", await fork({ runId: sequence, checkpoint: 3 }), RunState.SUCCEEDED);

  const parked = await start({
    name: "parked",
    steps: [{ name: "go", signal: { signal: "go" } }, echo("after", ref("steps.go.output"))],
  });
  await waits(parked);
  revoked.add(subject);
  await runs.signalRun({ runId: parked, signal: "go", payload: fromJson(ValueSchema, "now") });
  await until(parked, RunState.PARKED);
  revoked.delete(subject);
  await runs.resumeRun({ runId: parked });
  yield await exported("parked-and-resumed", parked, RunState.SUCCEEDED);

  const definition = {
    case: "graph" as const,
    value: fromJson(GraphSchema, { name: "long", steps: [{ name: "nap", timer: { duration: "60s" } }] }),
  };
  const { run: late } = await runs.startRun({ definition, budget: { maxDuration: durationFromMs(300) } });
  yield await exported("budget", late?.runId ?? "", RunState.FAILED);

  const sessionId = await newSession(sessions);
  for (const [name, text, schema] of [
    ["turn", "say Good morning", undefined],
    ["turn-with-tools", 'call echo {"text":"1"}\ncall broken {"text":"2"}\nsay done', undefined],
    ["turn-with-schema", 'say {"n":1}', { type: "object", required: ["n"] }],
    ["turn-that-cannot-be-repaired", "say no json", { type: "object", required: ["n"] }],
    ["turn-that-fails", "fail the provider is down", undefined],
  ] as const) {
    const { turn } = await sessions.sendTurn({
      sessionId,
      text,
      ...(schema === undefined ? {} : { answerSchema: schema as never }),
    });
    const turnId = turn?.turnId ?? "";
    await readEvents(sessions, sessionId, turn?.afterSeq ?? 0n, endsTurn(turnId));
    yield await exported(name, turnId);
  }
  const { turn } = await sessions.sendTurn({ sessionId, text: "wait 30s" });
  await sessions.cancelTurn({ sessionId });
  await readEvents(sessions, sessionId, turn?.afterSeq ?? 0n, endsTurn(turn?.turnId));
  yield await exported("turn-that-is-cancelled", turn?.turnId ?? "");
}
