import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { GraphSchema } from "@cadre/gen/cadre/orchestrator/v1/graph_pb";
import { type Cadre, CadreError, createCadre, type ExportRunResponse, reasonName } from "@cadre/sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { toUuid } from "../../services/runtime/ids/id.ts";
import { type RunningCadre, startCadre } from "../support/cadre.ts";
import { leastOfThree } from "../support/least-of-three.ts";

// What a hostile or broken caller can do to durable runs, through the public
// door. Whatever is refused is refused before anything is stored, and soon.

let server: RunningCadre;
let cadre: Cadre;
/** What a refusal costs the server at most, in milliseconds of a processor, whatever else the machine does. */
const refusalMs = 200;

beforeAll(async () => {
  server = await startCadre();
  cadre = createCadre({ baseUrl: server.url, apiKey: server.adminKey, retry: { maxAttempts: 1 } });
  // What is loaded with the first request of a kind is no part of any measurement.
  await (await cadre.runs.start({ graph: graph([echo("warm")]) })).result();
  for (const size of [0, 500])
    await refused({ steps: Array.from({ length: size }, (_, index) => echo(`s${index}`, "x", "nosuch")) });
}, 90_000);
afterAll(() => server.dispose());

const ref = (path: string): JsonObject => ({ $ref: path });
const echo = (name: string, text: JsonValue = "x", ...after: string[]): JsonObject => ({
  name,
  tool: { tool: "echo", arguments: { text } },
  after: after.map((step) => ({ step })),
});

/** A graph as a message; what is no graph at all goes as JSON. */
function graph(steps: readonly JsonObject[]) {
  return fromJson(GraphSchema, { name: "hostile", steps: [...steps] });
}

interface Refusal {
  readonly status: number;
  readonly reason: string;
  readonly message: string;
  readonly ms: number;
}

/** Sends a graph as JSON, as it is, and gives the refusal. Throws if it is taken. */
async function refused(graphJson: JsonObject, input: JsonValue = null): Promise<Refusal> {
  const body = JSON.stringify({ graph: { name: "hostile", ...graphJson }, input });
  const before = serverMs();
  const response = await fetch(`${server.url}/v1/runs`, {
    method: "POST",
    headers: { authorization: `Bearer ${server.adminKey}`, "content-type": "application/json" },
    body,
  });
  const answer = (await response.json()) as {
    readonly error?: { readonly reason: string; readonly message: string };
  };
  const ms = serverMs() - before;
  if (answer.error === undefined) throw new Error(`it was taken: ${JSON.stringify(answer).slice(0, 200)}`);
  return { status: response.status, reason: answer.error.reason, message: answer.error.message, ms };
}

/** The same, held to what a refusal may cost; the server does other things, too, so up to three times. */
async function quicklyRefused(graphJson: JsonObject, input: JsonValue = null): Promise<Refusal> {
  let refusal: Refusal | undefined;
  const ms = await leastOfThree(refusalMs, async () => {
    refusal = await refused(graphJson, input);
    return refusal.ms;
  });
  expect(ms).toBeLessThan(refusalMs);
  if (refusal === undefined) throw new Error("nothing was sent");
  return refusal;
}

/** The processor time of the server so far, in milliseconds; where that cannot be had, the time of day. */
function serverMs(): number {
  if (process.platform !== "linux") return performance.now();
  // Fields 14 and 15, user and system time, in ticks of 10 ms; the name before them may hold anything.
  const fields = readFileSync(`/proc/${server.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function newest(): Promise<string | undefined> {
  return (await cadre.runs.list({ pageSize: 1 }).page()).items[0]?.runId;
}

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const thrown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (thrown instanceof CadreError) return thrown.reason;
  throw thrown ?? new Error("the call succeeded");
}

describe("O01: graphs that cannot be", () => {
  test.each<[string, readonly JsonObject[], RegExp]>([
    [
      "a cycle",
      [echo("a", "x", "c"), echo("b", "x", "a"), echo("c", "x", "b")],
      /a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c/,
    ],
    ["a cycle by references", [echo("a", ref("steps.b.output")), echo("b", ref("steps.a.output"))], / -> /],
    ["a self-edge", [echo("a", "x", "a")], /a/],
    ["one name twice", [echo("a"), echo("a")], /a/],
    ["two names alike but for case", [echo("a"), echo("A")], /name/],
    ["a dependency that is not there", [echo("a", "x", "nosuch")], /nosuch/],
    ["a reference to nothing", [echo("a", ref("steps.nosuch.output"))], /nosuch/],
    ["no nodes", [], /steps/],
    ["an edge to a node of another run", [echo("a", "x", "warm")], /warm/],
    ["a condition that is none", [echo("a"), { ...echo("b"), after: [{ step: "a", when: "output +" }] }], /steps\[1\]/],
    ["a tool that is not there", [{ name: "a", tool: { tool: "nosuch_tool" } }], /nosuch_tool/],
  ])("%s", async (_, steps, named) => {
    const before = await newest();
    const { status, reason, message } = await quicklyRefused({ steps: [...steps] });
    expect({ status, reason }).toEqual({
      status: reason === "TOOL_NOT_FOUND" ? 404 : 400,
      reason: expect.stringMatching(/^(INVALID_GRAPH|INVALID_ARGUMENT|TOOL_NOT_FOUND)$/),
    });
    expect(message).toMatch(named);
    expect(await newest()).toBe(before);
  });
});

describe("O02: graphs and values without measure", () => {
  const chain = (length: number): JsonObject[] =>
    Array.from({ length }, (_, index) => (index === 0 ? echo("s0") : echo(`s${index}`, "x", `s${index - 1}`)));

  test.each<[string, () => { readonly steps: JsonObject[]; readonly input?: JsonValue }]>([
    ["10,001 nodes", () => ({ steps: Array.from({ length: 10_001 }, (_, index) => echo(`s${index}`)) })],
    ["a depth of 5,000", () => ({ steps: chain(5_000) })],
    ["a depth of 500", () => ({ steps: chain(500) })],
    [
      "a fan-out of 10,000",
      () => ({
        steps: [
          {
            name: "f",
            fan_out: {
              over: Array.from({ length: 10_000 }, () => 1),
              tool: { tool: "echo", arguments: { text: "x" } },
            },
          },
        ],
      }),
    ],
    ["an input of 2 MiB", () => ({ steps: [echo("a")], input: "x".repeat(2 * 1024 * 1024) })],
    ["1 MiB in a node", () => ({ steps: [echo("a", "x".repeat(1024 * 1024))] })],
    ["a template nested 40 deep", () => ({ steps: [echo("a", nested(40))] })],
  ])("%s", async (_, make) => {
    const before = await newest();
    const { steps, input = null } = make();
    const { status, reason } = await quicklyRefused({ steps }, input);
    expect(reason).toMatch(/^(LIMIT_EXCEEDED|INVALID_GRAPH|INVALID_ARGUMENT|MESSAGE_TOO_LARGE|MALFORMED_MESSAGE)$/);
    expect([400, 413, 429]).toContain(status);
    expect(await newest()).toBe(before);
  });

  test("5 MiB in one node, and a MiB in each of many, are more than a message may have", async () => {
    const mebi = "x".repeat(1024 * 1024);
    const many = Array.from({ length: 6 }, (_, index) => echo(`s${index}`, mebi));
    for (const steps of [[echo("a", mebi.repeat(5))], many]) {
      expect((await refused({ steps })).reason).toBe("MESSAGE_TOO_LARGE");
    }
  });

  test("a signal of 2 MiB is refused, and the run waits on", async () => {
    const run = await cadre.runs.start({ graph: graph([{ name: "go", signal: { signal: "go" } }]) });
    expect(await reasonOf(run.signal("go", "x".repeat(2 * 1024 * 1024)))).toBe("INVALID_ARGUMENT");
    await run.signal("go", "y");
    expect(await run.result()).toEqual({ go: "y" });
  });
});

describe("O04: histories that this code would not make", () => {
  /** Entries with numbers and hashes as the contract says them, so that only a replay can notice what was done. */
  function chained(runId: string, entries: readonly ExportRunResponse[]): ExportRunResponse[] {
    const run = Buffer.from(toUuid("run", runId).replaceAll("-", ""), "hex");
    let previous: Uint8Array = new Uint8Array(32);
    return entries.map((entry, index) => {
      const place = Buffer.alloc(6);
      place.writeUInt32BE(index + 1, 0);
      place.writeUInt16BE(entry.kind, 4);
      previous = createHash("sha256").update(previous).update(run).update(place).update(entry.body).digest();
      return { ...entry, seq: BigInt(index + 1), hash: previous };
    });
  }

  async function replay(runId: string, entries: readonly ExportRunResponse[]) {
    const results = await Array.fromAsync(cadre.runs.replay({ runId, entries: chained(runId, entries) }));
    expect(results).toHaveLength(1);
    const { error, diff } = results[0] ?? {};
    return { reason: error === undefined ? "" : reasonName(error.reason), diff: diff ?? [] };
  }

  test("a stored history replays; with an event removed, swapped or duplicated it does not, and a diff says how", async () => {
    const run = await cadre.runs.start({ graph: graph([echo("a"), echo("b", ref("steps.a.output.text"))]) });
    await run.result();
    const entries = await Array.fromAsync(cadre.runs.export(run.runId));
    expect((await replay(run.runId, entries)).reason).toBe("");
    const ends = entries.filter(({ kind }) => kind === 13);
    const [first, second] = ends;
    if (first === undefined || second === undefined) throw new Error("two steps have ended");
    const altered: Record<string, ExportRunResponse[]> = {
      removed: entries.filter((entry) => entry !== first),
      swapped: entries.map((entry) => (entry === first ? second : entry === second ? first : entry)),
      duplicated: entries.flatMap((entry) => (entry === first ? [entry, entry] : [entry])),
      "without its end": [...entries.slice(0, -1), second],
    };
    for (const [how, history] of Object.entries(altered)) {
      const { reason, diff } = await replay(run.runId, history);
      expect(reason, how).toBe("NON_DETERMINISTIC");
      expect(diff.length, how).toBeGreaterThan(0);
    }
  });

  test("a history whose bytes were changed is DATA_LOSS", async () => {
    const run = await cadre.runs.start({ graph: graph([echo("a")]) });
    await run.result();
    const entries = await Array.fromAsync(cadre.runs.export(run.runId));
    const broken = entries.map((entry, index) => (index === 1 ? { ...entry, hash: new Uint8Array(32) } : entry));
    const [result] = await Array.fromAsync(cadre.runs.replay({ runId: run.runId, entries: broken }));
    expect(reasonName(result?.error?.reason ?? 0)).toBe("DATA_LOSS");
  });
});

describe("O06: races", () => {
  test("50 starts with one key are one run, answered alike", async () => {
    const start = () => cadre.runs.start({ graph: graph([echo("a")]), idempotencyKey: "fifty-at-once" });
    const handles = await Promise.all(Array.from({ length: 50 }, start));
    expect(new Set(handles.map(({ runId }) => runId)).size).toBe(1);
    const other = cadre.runs.start({ graph: graph([echo("b")]), idempotencyKey: "fifty-at-once" });
    expect(await reasonOf(other)).toBe("IDEMPOTENCY_KEY_REUSED");
    const events = await Array.fromAsync(handles[0]?.events() ?? []);
    expect(events.filter(({ body }) => body.case === "runStarted")).toHaveLength(1);
  });

  test("20 cancellations that race a run's end leave one end", async () => {
    for (let round = 0; round < 5; round += 1) {
      const run = await cadre.runs.start({ graph: graph([echo("a"), echo("b", ref("steps.a.output.text"))]) });
      const answers = await Promise.all(
        Array.from({ length: 20 }, () =>
          run.cancel().then(
            () => "",
            (error: CadreError) => error.reason,
          ),
        ),
      );
      expect(answers.every((reason) => reason === "" || reason === "RUN_ENDED")).toBe(true);
      const events = await Array.fromAsync(run.events());
      expect(events.filter(({ body }) => body.case === "runEnded")).toHaveLength(1);
      expect(events.filter(({ body }) => body.case === "runCancelling").length).toBeLessThanOrEqual(1);
    }
  });

  test("a run that ended takes no signal, no cancellation and no decision; one that runs is not resumed", async () => {
    const ended = await cadre.runs.start({ graph: graph([echo("a")]) });
    await ended.result();
    expect(await reasonOf(ended.signal("go"))).toBe("RUN_ENDED");
    expect(await reasonOf(ended.cancel())).toBe("RUN_ENDED");
    expect(await reasonOf(ended.approve("a"))).toMatch(/^(RUN_ENDED|STEP_NOT_WAITING)$/);
    expect(await reasonOf(ended.resume())).toMatch(/^(RUN_ENDED|RUN_NOT_PARKED)$/);
    const open = await cadre.runs.start({ graph: graph([{ name: "go", signal: { signal: "go" } }]) });
    const resumes = await Promise.all(Array.from({ length: 20 }, () => reasonOf(open.resume())));
    expect(new Set(resumes)).toEqual(new Set(["RUN_NOT_PARKED"]));
    expect(await reasonOf(open.delete())).toBe("RUN_OPEN");
    await open.cancel();
    await expect(open.result()).rejects.toMatchObject({ name: "RunFailed", state: "cancelled" });
  });
});

describe("O09: runs without end", () => {
  const child = (depth: number): JsonObject =>
    depth === 0 ? echo("leaf") : { name: "down", child_run: { graph: { name: "child", steps: [child(depth - 1)] } } };

  test.each<[string, () => JsonObject]>([
    ["runs within runs, 50 deep", () => ({ steps: [child(50)] })],
    ["runs within runs, 9 deep", () => ({ steps: [child(9)] })],
    ["a timer of 10^12 ms", () => ({ steps: [{ name: "t", timer: { duration: "1000000000s" } }] })],
    ["a timer of -1 ms", () => ({ steps: [{ name: "t", timer: { duration: "-0.001s" } }] })],
    ["a timer of NaN", () => ({ steps: [{ name: "t", timer: { duration: "NaNs" } }] })],
    [
      "10,000 timers",
      () => ({
        steps: Array.from({ length: 10_000 }, (_, index) => ({ name: `t${index}`, timer: { duration: "1s" } })),
      }),
    ],
    ["retries without end", () => ({ steps: [{ ...echo("a"), retry: { max_attempts: 4_294_967_295 } }] })],
    ["retries without a pause", () => ({ steps: [{ ...echo("a"), retry: { max_attempts: 5, initial_delay: "0s" } }] })],
    ["a timeout of a year", () => ({ steps: [{ ...echo("a"), timeout: "31536000s" }] })],
  ])("%s", async (_, make) => {
    const before = await newest();
    const { status, reason } = await quicklyRefused(make());
    expect(reason).toMatch(/^(LIMIT_EXCEEDED|INVALID_GRAPH|INVALID_ARGUMENT|MALFORMED_MESSAGE)$/);
    expect([400, 429]).toContain(status);
    expect(await newest()).toBe(before);
  });

  test("a run that starts itself by its agent ends by the depth of runs", async () => {
    const name = "ouroboros";
    await cadre.agents.register({
      name,
      model: "scripted",
      graph: graph([{ name: "again", child_run: { agent: name }, retry: { max_attempts: 1 } }]),
    });
    const outcome = await cadre.runs
      .start({ agent: name })
      .then((run) => run.result())
      .catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(CadreError);
    expect((outcome as CadreError).reason).toMatch(/^(INVALID_GRAPH|LIMIT_EXCEEDED|CHILD_FAILED)$/);
  });
});

function nested(depth: number): JsonValue {
  let value: JsonValue = "x";
  for (let level = 0; level < depth; level += 1) value = { a: value };
  return value;
}
