import { create, fromBinary, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { CommandSchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { RunSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FakeCall, FakeTools } from "../../test/support/fake-tools.ts";
import {
  migrateOrchestrator,
  startTestOrchestrator,
  type TestOrchestrator,
  testPrincipal,
} from "../../test/support/orchestrator.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { until } from "../../test/support/settled.ts";
import { newId, toUuid } from "../runtime/ids/id.ts";
import type { Entry, EntryBody } from "./domain/entry.ts";
import { placeKey } from "./domain/graph-run.ts";
import type { Json } from "./domain/json.ts";
import { createScriptedModel } from "./models/scripted.ts";
import { type AppendStore, hasEnded, type RunState } from "./store/append-store.ts";
import { decodeEntry } from "./store/entry-codec.ts";
import { fromProtoGraph } from "./store/graph-codec.ts";

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
  await migrateOrchestrator(database.url);
});
afterAll(() => database.drop());

const principal = testPrincipal();
const signal = AbortSignal.timeout(600_000);

/** An orchestrator with tools, and how a test talks to its runs. */
class World implements AsyncDisposable {
  readonly cadre: TestOrchestrator;
  readonly calls: string[] = [];

  private constructor(cadre: TestOrchestrator) {
    this.cadre = cadre;
  }

  static async start(options: Partial<Parameters<typeof startTestOrchestrator>[0]> = {}): Promise<World> {
    const calls: string[] = [];
    const note = (call: FakeCall): string => {
      calls.push(String(call.arguments["text"]));
      return String(call.arguments["text"]);
    };
    let failures = 0;
    const tools = new FakeTools()
      .add("echo", (call) => ({ text: note(call) }))
      .add("undo", (call) => ({ undone: note(call) }))
      .add("fail", (call) => {
        note(call);
        throw new Error("out of order");
      })
      .add("flaky", (call) => {
        failures += 1;
        if (failures < 3) throw new Error("not yet");
        return { text: note(call) };
      })
      .add("hang", (call) => {
        note(call);
        return new Promise((resolve) =>
          call.signal.addEventListener("abort", () => resolve("stopped"), { once: true }),
        );
      });
    const cadre = await startTestOrchestrator({
      databaseUrl: database.url,
      tools,
      previousWritersAreDead: true,
      ...options,
    });
    const world = new World(cadre);
    Object.assign(world, { calls });
    return world;
  }

  async run(
    graph: JsonValue,
    input: Json = null,
    more: { maxSteps?: number; maxDurationMs?: number } = {},
  ): Promise<string> {
    const reply = await this.cadre.orchestrator.engine.startRun(
      {
        principal,
        requestId: newId("req"),
        traceparent: "",
        idempotency: undefined,
        graph: fromProtoGraph(fromJson(GraphSchema, graph)),
        checkTools: () => undefined,
        agent: undefined,
        input: { value: input, blob: undefined },
        labels: {},
        maxSteps: more.maxSteps ?? 0,
        maxDurationMs: more.maxDurationMs ?? 0,
        scheduleId: undefined,
        fork: undefined,
      },
      signal,
    );
    if (reply.outcome.case !== "startRun") throw new TypeError("no run was started");
    return reply.outcome.value.run?.runId ?? "";
  }

  /** Waits until a run's row is as wanted. */
  async until(runId: string, wanted: (state: RunState) => boolean) {
    const runUuid = toUuid("run", runId);
    const reader = this.cadre.orchestrator.engine.feed.open(runUuid);
    try {
      for (;;) {
        const row = await this.cadre.database.engine
          .selectFrom("run")
          .select(["state", "view", "head"])
          .where("run_id", "=", runUuid)
          .executeTakeFirstOrThrow();
        if (wanted(row.state as RunState)) return row;
        await reader.next(5_000, signal);
      }
    } finally {
      reader.close();
    }
  }

  async ended(runId: string) {
    await this.until(runId, hasEnded);
    const entries = await this.entries(runId);
    const last = entries.at(-1)?.body;
    if (last?.type !== "graph.ended") throw new TypeError("the last entry is no end");
    return last.end;
  }

  async entries(runId: string): Promise<readonly Entry[]> {
    const rows = await this.cadre.database.engine
      .selectFrom("entry")
      .select("body")
      .where("run_id", "=", toUuid("run", runId))
      .orderBy("seq")
      .execute();
    return rows.map(({ body }) => decodeEntry(body));
  }

  /** Waits until an entry is stored. */
  async entry<T extends EntryBody["type"]>(
    runId: string,
    type: T,
    where: (body: Extract<EntryBody, { type: T }>) => boolean = () => true,
  ) {
    const reader = this.cadre.orchestrator.engine.feed.open(toUuid("run", runId));
    try {
      for (;;) {
        for (const { body } of await this.entries(runId)) {
          if (body.type === type && where(body as Extract<EntryBody, { type: T }>))
            return body as Extract<EntryBody, { type: T }>;
        }
        await reader.next(5_000, signal);
      }
    } finally {
      reader.close();
    }
  }

  async command(runId: string, request: Parameters<typeof create<typeof CommandSchema>>[1] & object) {
    const command = create(CommandSchema, { requestId: newId("req"), principal, ...request });
    return await this.cadre.orchestrator.engine.dispatch(runId, command, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cadre.stop();
  }
}

/** Does something while no commit of a run gets through; `isWaitedFor` resolves when one is on its way. */
async function whileHeld(runId: string, work: (isWaitedFor: () => Promise<void>) => Promise<void>): Promise<void> {
  const holder = new pg.Client(database.url);
  await holder.connect();
  try {
    await holder.query("begin");
    await holder.query("select 1 from orchestrator.run where run_id = $1 for update", [toUuid("run", runId)]);
    await work(() =>
      until(async () => {
        const { rows } = await holder.query("select 1 from pg_locks where not granted");
        return rows.length > 0;
      }),
    );
  } finally {
    await holder.query("commit");
    await holder.end();
  }
}

const echo = (name: string, text: Json, more: Record<string, JsonValue> = {}) => ({
  name,
  tool: { tool: "echo", arguments: { text: text as JsonValue } },
  ...more,
});
const places = (entries: readonly Entry[], type: EntryBody["type"]) =>
  entries.flatMap(({ body }) => (body.type === type && "place" in body ? [placeKey(body.place)] : []));

describe("a graph", () => {
  test("goes through its steps with an entry a step, and gives its output", async () => {
    await using world = await World.start();
    const runId = await world.run(
      {
        name: "three",
        steps: [
          echo("c", { $ref: "steps.b.output.text" }),
          echo("b", { $ref: "steps.a.output.text" }),
          echo("a", { $ref: "input.word" }),
        ],
      },
      { word: "hello" },
    );
    expect(await world.ended(runId)).toEqual({
      state: "succeeded",
      output: { value: { c: { text: "hello" } }, blob: undefined },
    });
    const entries = await world.entries(runId);
    expect(entries.map(({ body }) => body.type).filter((type) => type !== "graph.step.started")).toEqual([
      "graph.accepted",
      "graph.started",
      "graph.step.succeeded",
      "graph.step.succeeded",
      "graph.step.succeeded",
      "graph.ended",
    ]);
  });

  test("takes the edges whose conditions hold, skips the rest, and joins", async () => {
    await using world = await World.start();
    const runId = await world.run(
      {
        name: "fork",
        steps: [
          echo("pick", { $ref: "input" }),
          echo("left", "L", { after: [{ step: "pick", when: 'output.text == "left"' }] }),
          echo("right", "R", { after: [{ step: "pick", when: 'output.text == "right"' }] }),
          echo("after_right", "never", { after: [{ step: "right" }] }),
          echo(
            "join",
            { l: { $ref: "steps.left.output" }, r: { $ref: "steps.right.output" } },
            { after: [{ step: "left" }, { step: "right" }] },
          ),
        ],
        output: { $ref: "steps.join.output" },
      },
      "left",
    );
    expect(await world.ended(runId)).toMatchObject({ state: "succeeded" });
    expect(places(await world.entries(runId), "step.skipped").sort()).toEqual(["after_right", "right"]);
    expect(world.calls).not.toContain("never");
  });

  test("fans out within its bound and keeps the order", async () => {
    await using world = await World.start();
    const runId = await world.run(
      {
        name: "fan",
        steps: [
          {
            name: "each",
            fanOut: {
              over: { $ref: "input" },
              concurrency: 3,
              tool: { tool: "echo", arguments: { text: { $ref: "item" } } },
            },
          },
          { name: "none", fanOut: { over: [], tool: { tool: "echo", arguments: { text: { $ref: "item" } } } } },
        ],
      },
      ["a", "b", "c", "d", "e", "f", "g"],
    );
    expect(await world.ended(runId)).toMatchObject({
      output: { value: { each: ["a", "b", "c", "d", "e", "f", "g"].map((text) => ({ text })), none: [] } },
    });
  });

  test("goes to its end although its last element ends while the one before it is being stored", async () => {
    const finish = new Map<string, () => void>();
    const tools = new FakeTools().add(
      "gate",
      ({ arguments: { text } }) => new Promise((resolve) => finish.set(String(text), () => resolve(text ?? null))),
    );
    await using world = await World.start({ tools });
    const runId = await world.run({
      name: "gates",
      steps: [
        { name: "each", fanOut: { over: ["a", "b"], tool: { tool: "gate", arguments: { text: { $ref: "item" } } } } },
      ],
      output: { $ref: "steps.each.output" },
    });
    // Both have said that they are slow, so nothing else is stored until one ends.
    await world.entry(runId, "graph.step.started", ({ place }) => place.index === 0);
    await world.entry(runId, "graph.step.started", ({ place }) => place.index === 1);
    await whileHeld(runId, async (isWaitedFor) => {
      finish.get("a")?.();
      await isWaitedFor();
      finish.get("b")?.();
      await until(() => world.cadre.orchestrator.engine.status.queued > 0);
    });
    expect(await world.ended(runId)).toEqual({ state: "succeeded", output: { value: ["a", "b"], blob: undefined } });
  });

  test("asks a model and an agent with tools, whose answers are outputs", async () => {
    await using world = await World.start({ models: [createScriptedModel()] });
    await world.cadre.agents.registerAgent({ definition: { name: "worker", model: "scripted", tools: ["echo"] } });
    const orgOf = await world.cadre.agents.listAgents({});
    expect(orgOf.agents.length).toBeGreaterThan(0);
    const runId = await world.run({ name: "ask", steps: [{ name: "ask", model: { prompt: "say bonjour" } }] });
    expect(await world.ended(runId)).toMatchObject({
      state: "succeeded",
      output: { value: { ask: { text: expect.stringContaining("bonjour") } } },
    });
  });
});

describe("steps that change nothing", () => {
  const pureTools = (calls: string[]) =>
    new FakeTools()
      .addPure("look", ({ arguments: { text } }) => {
        calls.push(`look ${text}`);
        return { text: String(text) };
      })
      .add("act", ({ arguments: { text } }) => {
        calls.push(`act ${text}`);
        return { text: String(text) };
      });
  const step = (name: string, tool: string, after?: string): JsonValue => ({
    name,
    tool: { tool, arguments: { text: after === undefined ? "1" : { $ref: `steps.${after}.output.text` } } },
  });

  test("share commits, with an entry each", async () => {
    await using world = await World.start({ tools: pureTools([]) });
    const names = Array.from({ length: 10 }, (_, index) => `s${index}`);
    const before = world.cadre.orchestrator.engine.status.batches;
    const runId = await world.run({
      name: "ten",
      steps: names.map((name, index) => step(name, "look", names[index - 1])),
    });
    expect(await world.ended(runId)).toMatchObject({ state: "succeeded", output: { value: { s9: { text: "1" } } } });
    expect(places(await world.entries(runId), "graph.step.succeeded")).toEqual(names);
    expect(world.cadre.orchestrator.engine.status.batches - before).toBeLessThan(10);
  });

  test("begin before what made them ready is committed, and what acts waits for that", async () => {
    const calls: string[] = [];
    await using world = await World.start({ tools: pureTools(calls) });
    const runId = await world.run({
      name: "wait",
      steps: [
        { name: "go", signal: { signal: "go" } },
        { ...(step("one", "look") as object), after: [{ step: "go" }] },
        step("two", "look", "one"),
        step("three", "act", "two"),
        { name: "ask", approval: { prompt: "Go on?" }, after: [{ step: "two" }] },
      ],
    });
    await world.entry(runId, "step.waiting");
    let signalled: Promise<unknown> | undefined;
    await whileHeld(runId, async (isWaitedFor) => {
      signalled = world.command(runId, { request: { case: "signalRun", value: { runId, signal: "go" } } });
      await isWaitedFor();
      await until(() => calls.length === 2);
      expect(places(await world.entries(runId), "graph.step.succeeded")).toEqual([]);
    });
    expect(calls.slice(0, 2)).toEqual(["look 1", "look 1"]);
    await signalled;
    await world.entry(runId, "graph.step.succeeded", ({ place }) => place.name === "three");
    await world.command(runId, { request: { case: "decideApproval", value: { runId, step: "ask", approved: true } } });
    expect(await world.ended(runId)).toMatchObject({ state: "succeeded" });
    expect(calls).toEqual(["look 1", "look 1", "act 1"]);
  });

  test("begin while their run is being accepted, and what acts waits for that", async () => {
    const calls: string[] = [];
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    await using world = await World.start({
      tools: pureTools(calls),
      wrapAppendStore: (inner) =>
        storeOf(inner, async (writer, batch) => {
          if (batch.newRuns.length > 0) await released;
          return await inner.append(writer, batch);
        }),
    });
    const started = world.run({
      name: "two",
      steps: [step("one", "look"), step("two", "look", "one"), step("three", "act"), step("four", "act", "two")],
    });
    await until(() => calls.length === 2);
    expect(await Promise.race([started, Promise.resolve("not accepted")])).toBe("not accepted");
    expect(calls).toEqual(["look 1", "look 1"]);
    release();
    expect(await world.ended(await started)).toMatchObject({ state: "succeeded" });
    expect(calls.toSorted()).toEqual(["act 1", "act 1", "look 1", "look 1"]);
  });

  test("are made once, also where the batch is cut in two that accepts their run", async () => {
    const calls: string[] = [];
    let cut = 0;
    await using world = await World.start({
      tools: pureTools(calls),
      wrapAppendStore: (inner) =>
        storeOf(inner, async (writer, batch) => {
          if (batch.newRuns.length <= 1) return await inner.append(writer, batch);
          cut += 1;
          // Not before the steps are over that it began.
          await until(() => calls.length === 10);
          return { type: "refused", why: "invalid", cause: new Error("too many") };
        }),
    });
    const graph = {
      name: "three",
      steps: [step("one", "look"), step("two", "look", "one"), step("three", "act", "two")],
    };
    const runs = await Promise.all(Array.from({ length: 5 }, () => world.run(graph)));
    for (const runId of runs) {
      expect(await world.ended(runId)).toMatchObject({ state: "succeeded" });
      expect(places(await world.entries(runId), "graph.step.succeeded")).toEqual(["one", "two", "three"]);
    }
    expect(cut).toBeGreaterThan(0);
    expect(calls.filter((call) => call === "look 1")).toHaveLength(10);
  });
});

/** A store that appends in another way. */
function storeOf(inner: AppendStore, append: AppendStore["append"]): AppendStore {
  return { append, position: (writer) => inner.position(writer), heads: (runIds) => inner.heads(runIds) };
}

describe("what fails", () => {
  test("is tried again with the same key, and then fails the run", async () => {
    await using world = await World.start();
    const retry = { maxAttempts: 3, initialDelay: "0.1s", maxDelay: "0.1s" };
    const runId = await world.run({
      name: "bad",
      steps: [{ name: "a", tool: { tool: "fail", arguments: { text: "x" } }, retry }],
    });
    expect(await world.ended(runId)).toMatchObject({ state: "failed", step: "a", error: { reason: "TOOL_FAILED" } });
    const failures = (await world.entries(runId)).filter(({ body }) => body.type === "graph.step.failed");
    expect(failures).toHaveLength(3);
    expect(new Set(failures.map(({ body }) => body.type === "graph.step.failed" && body.stepId)).size).toBe(1);
    const row = await world.until(runId, hasEnded);
    expect(fromBinary(RunSchema, row.view).error?.step).toBe("a");
  });

  test("elements that fail at once fail their step, and the run, once", async () => {
    await using world = await World.start();
    const runId = await world.run({
      name: "all-bad",
      steps: [
        {
          name: "each",
          retry: { maxAttempts: 1 },
          fanOut: { over: ["a", "b", "c"], tool: { tool: "fail", arguments: { text: { $ref: "item" } } } },
        },
      ],
    });
    expect(await world.ended(runId)).toMatchObject({ state: "failed", step: "each", error: { reason: "TOOL_FAILED" } });
    expect(places(await world.entries(runId), "graph.step.failed").filter((place) => place === "each")).toHaveLength(1);
  });

  test("is undone in reverse order, by steps of their own", async () => {
    await using world = await World.start();
    const undo = (text: string) => ({
      compensation: { tool: "undo", arguments: { text, of: { $ref: "output.text" } } },
    });
    const runId = await world.run({
      name: "saga",
      steps: [
        echo("one", "1", undo("undo 1")),
        echo("two", "2", { after: [{ step: "one" }], ...undo("undo 2") }),
        echo("three", "3", { after: [{ step: "two" }], ...undo("undo 3") }),
        {
          name: "bad",
          after: [{ step: "three" }],
          retry: { maxAttempts: 1 },
          tool: { tool: "fail", arguments: { text: "x" } },
        },
      ],
    });
    expect(await world.ended(runId)).toMatchObject({ state: "failed", step: "bad" });
    expect(world.calls).toEqual(["1", "2", "3", "x", "undo 3", "undo 2", "undo 1"]);
  });

  test("a value that a template needs and that is not there fails the step", async () => {
    await using world = await World.start();
    const runId = await world.run({ name: "gap", steps: [echo("a", { $ref: "input.no.such" })] }, { no: {} });
    expect(await world.ended(runId)).toMatchObject({
      state: "failed",
      step: "a",
      error: { reason: "EVALUATION_FAILED" },
    });
  });

  test("a budget of steps and of time ends the run", async () => {
    await using world = await World.start();
    const steps = ["a", "b", "c"].map((name, index, all) =>
      echo(name, name, index === 0 ? {} : { after: [{ step: all[index - 1] ?? "" }] }),
    );
    const few = await world.run({ name: "few", steps }, null, { maxSteps: 2 });
    expect(await world.ended(few)).toMatchObject({ state: "failed", error: { reason: "RUN_BUDGET" } });
    const slow = await world.run({ name: "slow", steps: [{ name: "t", timer: { duration: "3600s" } }] }, null, {
      maxDurationMs: 300,
    });
    expect(await world.ended(slow)).toMatchObject({ state: "failed", error: { reason: "RUN_BUDGET" } });
  });
});

describe("what waits", () => {
  test("a timer, over a restart", async () => {
    const first = await World.start();
    const runId = await first.run({
      name: "later",
      steps: [{ name: "t", timer: { duration: "0.8s" } }, echo("a", "done", { after: [{ step: "t" }] })],
    });
    await first.entry(runId, "step.waiting");
    await first.until(runId, (state) => state === 2);
    await first.cadre.stop();
    await using second = await World.start();
    expect(await second.ended(runId)).toMatchObject({ state: "succeeded" });
    expect(second.calls).toEqual(["done"]);
  });

  test("an approval, with who and why; the first decision holds", async () => {
    await using world = await World.start();
    const graph = {
      name: "ask",
      steps: [
        echo("draft", "text"),
        { name: "ok", approval: { prompt: { $ref: "steps.draft.output.text" } } },
        echo("send", { $ref: "steps.ok.output.by" }),
      ],
    };
    const runId = await world.run(graph);
    expect((await world.entry(runId, "step.waiting")).wait).toMatchObject({ for: "approval", prompt: "text" });
    await world.until(runId, (state) => state === 2);
    await world.command(runId, {
      request: { case: "decideApproval", value: { runId, step: "ok", approved: true, reason: "fine" } },
    });
    expect(await world.ended(runId)).toMatchObject({ output: { value: { send: { text: principal.subject } } } });

    const refused = await world.run(graph);
    await world.entry(refused, "step.waiting");
    await world.command(refused, {
      request: { case: "decideApproval", value: { runId: refused, step: "ok", approved: false, reason: "no" } },
    });
    expect(await world.ended(refused)).toMatchObject({
      state: "failed",
      error: { reason: "APPROVAL_REFUSED", message: "no" },
    });
    await expect(
      world.command(refused, {
        request: { case: "decideApproval", value: { runId: refused, step: "ok", approved: true } },
      }),
    ).rejects.toMatchObject({ reason: expect.stringMatching(/RUN_ENDED|RUN_NOT_FOUND/) });
  });

  test("a message that came early or late, each for one step", async () => {
    await using world = await World.start();
    const runId = await world.run({
      name: "mail",
      steps: [
        { name: "first", signal: { signal: "go" } },
        { name: "second", signal: { signal: "go" }, after: [{ step: "first" }] },
        echo("say", { a: { $ref: "steps.first.output" }, b: { $ref: "steps.second.output" } }),
      ],
      output: [{ $ref: "steps.first.output" }, { $ref: "steps.second.output" }],
    });
    await world.entry(runId, "step.waiting");
    for (const text of ["one", "two", "three"]) {
      await world
        .command(runId, {
          request: {
            case: "signalRun",
            value: { runId, signal: "go", payload: { kind: { case: "stringValue", value: text } } },
          },
        })
        .catch(() => undefined);
    }
    expect(await world.ended(runId)).toMatchObject({ output: { value: ["one", "two"] } });
  });

  test("nobody decides in time", async () => {
    await using world = await World.start();
    const runId = await world.run({
      name: "late",
      steps: [{ name: "ok", approval: { prompt: "?", expiresAfter: "0.2s" } }],
    });
    expect(await world.ended(runId)).toMatchObject({ state: "failed", error: { reason: "WAIT_EXPIRED" } });
  });
});

describe("children", () => {
  const child = {
    name: "child",
    steps: [echo("a", { $ref: "input" }), echo("b", { $ref: "steps.a.output.text" })],
    output: { $ref: "steps.b.output.text" },
  };

  test("run under their parent, and their output is the step's", async () => {
    await using world = await World.start();
    const runId = await world.run({
      name: "parent",
      steps: [{ name: "c", childRun: { graph: child, input: "hi" } }, echo("z", { $ref: "steps.c.output" })],
    });
    expect(await world.ended(runId)).toMatchObject({ output: { value: { z: { text: "hi" } } } });
    const rows = await world.cadre.database.engine
      .selectFrom("run")
      .select(["root_id", "parent_run_id", "state"])
      .where("parent_run_id", "=", toUuid("run", runId))
      .execute();
    expect(rows).toEqual([{ root_id: toUuid("run", runId), parent_run_id: toUuid("run", runId), state: 4 }]);
  });

  test("of a list, and a failed one fails the parent", async () => {
    await using world = await World.start();
    const runId = await world.run({
      name: "many",
      steps: [{ name: "each", fanOut: { over: ["x", "y"], childRun: { graph: child, input: { $ref: "item" } } } }],
    });
    expect(await world.ended(runId)).toMatchObject({ output: { value: { each: ["x", "y"] } } });
    const bad = {
      name: "bad",
      steps: [{ name: "a", retry: { maxAttempts: 1 }, tool: { tool: "fail", arguments: { text: "x" } } }],
    };
    const failed = await world.run({ name: "parent", steps: [{ name: "c", childRun: { graph: bad } }] });
    expect(await world.ended(failed)).toMatchObject({ state: "failed", error: { reason: "CHILD_FAILED" } });
  });

  test("are cancelled with their parent", async () => {
    await using world = await World.start();
    const waiting = { name: "waiting", steps: [{ name: "t", timer: { duration: "3600s" } }] };
    const runId = await world.run({ name: "parent", steps: [{ name: "c", childRun: { graph: waiting } }] });
    const wait = await world.entry(runId, "step.waiting");
    const childId = wait.wait.for === "child" ? wait.wait.runId : "";
    await world.entry(childId, "step.waiting");
    await world.command(runId, { request: { case: "cancelRun", value: { runId, reason: "enough" } } });
    expect(await world.ended(runId)).toEqual({ state: "cancelled" });
    expect(await world.ended(childId)).toEqual({ state: "cancelled" });
  });
});

describe("a cancellation", () => {
  test("reaches the tool, says how far it got, and undoes if that is asked for", async () => {
    await using world = await World.start();
    const runId = await world.run({
      name: "stop",
      steps: [
        echo("one", "1", { compensation: { tool: "undo", arguments: { text: "undo 1" } } }),
        { name: "hang", after: [{ step: "one" }], tool: { tool: "hang", arguments: { text: "hanging" } } },
        echo("never", "never", { after: [{ step: "hang" }] }),
      ],
    });
    await world.entry(runId, "graph.step.started", ({ place }) => place.name === "hang");
    await world.command(runId, { request: { case: "cancelRun", value: { runId, compensate: true } } });
    expect(await world.ended(runId)).toEqual({ state: "cancelled" });
    expect((await world.entry(runId, "step.cancelled")).receipt).toBe("partial");
    expect(world.calls).toEqual(["1", "hanging", "undo 1"]);
    await expect(world.command(runId, { request: { case: "cancelRun", value: { runId } } })).rejects.toMatchObject({
      reason: "RUN_ENDED",
    });
  });
});

describe("a parked run", () => {
  test("whose principal is gone, goes on for another one", async () => {
    const revoked = new Set<string>();
    await using world = await World.start({ revoked });
    const runId = await world.run({
      name: "gone",
      steps: [{ name: "go", signal: { signal: "go" } }, echo("a", "A", { after: [{ step: "go" }] })],
    });
    await world.entry(runId, "step.waiting");
    revoked.add(principal.subject);
    await world.command(runId, { request: { case: "signalRun", value: { runId, signal: "go" } } });
    await world.until(runId, (state) => state === 3);
    expect(world.calls).toEqual([]);
    const other = create(PrincipalSchema, { ...principal, subject: "other" });
    await world.command(runId, { principal: other, request: { case: "resumeRun", value: { runId } } });
    expect(await world.ended(runId)).toMatchObject({ state: "succeeded" });
  });

  test("whose journal was changed is never gone on with", async () => {
    const first = await World.start();
    const runId = await first.run({
      name: "changed",
      steps: [
        echo("a", "A"),
        { name: "go", signal: { signal: "go" }, after: [{ step: "a" }] },
        echo("b", "B", { after: [{ step: "go" }] }),
      ],
    });
    await first.entry(runId, "step.waiting");
    await first.until(runId, (state) => state === 2);
    await first.cadre.stop();
    const admin = new pg.Client(database.url);
    await admin.connect();
    await admin.query(
      "update orchestrator.entry set body = set_byte(body, 8, 255 - get_byte(body, 8)) where run_id = $1 and seq = 3",
      [toUuid("run", runId)],
    );
    await admin.end();
    await using second = await World.start();
    await expect(
      second.command(runId, { request: { case: "signalRun", value: { runId, signal: "go" } } }),
    ).rejects.toMatchObject({ reason: expect.stringMatching(/RUN_ENDED|DATA_LOSS/) });
    const row = await second.until(runId, (state) => state === 3);
    expect(fromBinary(RunSchema, row.view).parked?.message).toContain("changed");
    expect(second.calls).toEqual([]);
  });
});
