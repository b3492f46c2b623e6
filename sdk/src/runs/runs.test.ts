import { create, fromJson, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import { type RunEvent, RunEventSchema } from "@cadre/gen/cadre/orchestrator/v1/run_event_pb";
import {
  BatchAction,
  type BatchRunsRequest,
  type Run,
  RunSchema,
  RunService,
  RunState,
  type StartRunRequest,
} from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { Code, ConnectError, createRouterTransport, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { CadreError, createCadre, type ReconnectOptions, RunFailed } from "../index.ts";

const runId = `run_${"0".repeat(26)}`;
const atOnce: ReconnectOptions = { initialDelayMs: 0, maxDelayMs: 0, silenceTimeoutMs: 200 };
const value = (json: JsonValue) => fromJson(ValueSchema, json);

type Body = NonNullable<MessageInitShape<typeof RunEventSchema>["body"]>;

/** A run whose journal has every second number left out, as the journal's own entries are. */
function setUp(bodies: readonly Body[], now: MessageInitShape<typeof RunSchema> = {}) {
  const events = bodies.map((body, index) => create(RunEventSchema, { seq: BigInt(index * 2 + 1), runId, body }));
  const run = (init: MessageInitShape<typeof RunSchema> = {}): Run =>
    create(RunSchema, { runId, state: RunState.RUNNING, ...init });
  const fake = {
    cursors: [] as bigint[],
    started: [] as { readonly request: StartRunRequest; readonly key: string }[],
    batches: [] as BatchRunsRequest[],
    /** After how many events the next streams break. */
    cuts: [] as number[],
    failStarts: 0,
  };
  const handlers: Partial<ServiceImpl<typeof RunService>> = {
    startRun(request, context: HandlerContext) {
      fake.started.push({ request, key: context.requestHeader.get("idempotency-key") ?? "" });
      if (fake.started.length <= fake.failStarts) throw new ConnectError("lost", Code.Unavailable);
      return { run: run() };
    },
    getRun: () => ({ run: run(now) }),
    async *watchRun({ afterSeq }) {
      fake.cursors.push(afterSeq);
      const cut = fake.cuts.shift() ?? Number.POSITIVE_INFINITY;
      let sent = 0;
      yield {};
      for (const event of events.filter(({ seq }) => seq > afterSeq)) {
        if (sent >= cut) throw new ConnectError("cut", Code.Unavailable);
        sent += 1;
        yield { event };
      }
    },
    async *batchRuns(request) {
      fake.batches.push(request);
      yield { runId, done: 1n, failed: 1n, total: 2n, error: { reason: Reason.RUN_OPEN, message: "is open" } };
      yield { done: 2n, failed: 1n, total: 2n };
    },
  };
  const transport = createRouterTransport((router) => router.service(RunService, handlers));
  return { fake, cadre: createCadre({ baseUrl: "http://fake", transport, retry: { initialDelayMs: 0 } }) };
}

const accepted: Body = { case: "runAccepted", value: { name: "g" } };
const stepEnded: Body = {
  case: "stepEnded",
  value: { step: { name: "a" }, outcome: { case: "skipped", value: true } },
};
const ended = (output: JsonValue): Body => ({
  case: "runEnded",
  value: { outcome: { case: "output", value: value(output) } },
});

test("a start whose outcome was lost is repeated with the key that it had", async () => {
  const { fake, cadre } = setUp([accepted]);
  fake.failStarts = 2;
  const run = await cadre.runs.start({
    agent: "report",
    input: { month: "2026-02" },
    labels: { a: "b" },
    budget: { maxSteps: 5, maxDurationMs: 1_500 },
  });
  expect(run.runId).toBe(runId);
  expect(fake.started).toHaveLength(3);
  expect(new Set(fake.started.map(({ key }) => key)).size).toBe(1);
  expect(fake.started[0]?.key).toMatch(/^[0-9a-f]{32}$/);
  expect(fake.started[2]?.request).toMatchObject({
    definition: { case: "agent", value: "report" },
    labels: { a: "b" },
    budget: { maxSteps: 5, maxDuration: { seconds: 1n, nanos: 500_000_000 } },
  });
});

test("the result comes over any number of breaks, and no event is given twice", async () => {
  const { fake, cadre } = setUp([accepted, stepEnded, stepEnded, ended({ n: 1 })]);
  fake.cuts = [0, 1, 0, 2];
  const run = await cadre.runs.start({ agent: "report" });
  const seen: RunEvent[] = [];
  for await (const event of run.events({ reconnect: atOnce })) seen.push(event);
  expect(seen.map(({ seq }) => seq)).toEqual([1n, 3n, 5n, 7n]);
  fake.cuts = [1, 1];
  expect(await run.result({ reconnect: atOnce })).toEqual({ n: 1 });
  expect(fake.cursors.slice(-3)).toEqual([0n, 1n, 3n]);
});

test("a stream behind the end of a run ends", async () => {
  const { cadre } = setUp([accepted, ended(null)]);
  expect(await Array.fromAsync(cadre.runs.events(runId, { afterSeq: 3n, reconnect: atOnce }))).toEqual([]);
});

test("a run that failed, was cancelled or is parked throws what it is", async () => {
  const error = { reason: Reason.TOOL_FAILED, message: "it broke", step: "send" };
  const failed = setUp([accepted, { case: "runEnded", value: { outcome: { case: "error", value: error } } }]);
  const failure = await (await failed.cadre.runs.start({ agent: "a" })).result().catch((thrown: unknown) => thrown);
  expect(failure).toBeInstanceOf(RunFailed);
  expect(failure).toBeInstanceOf(CadreError);
  expect(failure).toMatchObject({ state: "failed", reason: "TOOL_FAILED", step: "send", runId });
  expect((failure as RunFailed).message).toBe("step send: it broke");

  const cancelled = setUp([accepted, { case: "runEnded", value: { outcome: { case: "cancelled", value: true } } }]);
  await expect((await cancelled.cadre.runs.start({ agent: "a" })).result()).rejects.toMatchObject({
    state: "cancelled",
    reason: "CANCELLED",
  });

  const parked = { reason: Reason.NON_DETERMINISTIC, message: "a tool changed", diff: ["- a", "+ b"] };
  const standing = setUp([accepted, { case: "runParked", value: { parked } }], { state: RunState.PARKED, parked });
  await expect((await standing.cadre.runs.start({ agent: "a" })).result()).rejects.toMatchObject({
    state: "parked",
    reason: "NON_DETERMINISTIC",
    diff: ["- a", "+ b"],
    remedy: expect.stringContaining(`cadre runs get ${runId}`),
  });
});

test("a run that was parked and went on is waited for", async () => {
  const bodies: Body[] = [accepted, { case: "runParked", value: {} }, { case: "runResumed", value: {} }, ended("done")];
  const { cadre } = setUp(bodies, { state: RunState.RUNNING });
  expect(await (await cadre.runs.start({ agent: "a" })).result()).toBe("done");
});

test("an output that is too large for an event is asked for", async () => {
  const large: Body = { case: "runEnded", value: { outcome: { case: "largeOutputBytes", value: 600_000n } } };
  const { cadre } = setUp([accepted, large], { state: RunState.SUCCEEDED, output: value("large") });
  expect(await (await cadre.runs.start({ agent: "a" })).result()).toBe("large");
});

test("what is known of a run that ended needs no stream", async () => {
  const { fake, cadre } = setUp([], { state: RunState.SUCCEEDED, output: value(7) });
  expect(await (await cadre.runs.get(runId)).result()).toBe(7);
  expect(fake.cursors).toEqual([]);
});

test("a batch tells how far it is, and which runs it could not deal with", async () => {
  const { fake, cadre } = setUp([]);
  const filter = { states: ["parked" as const], labels: { a: "b" }, createdBefore: new Date(0) };
  const [first, last] = await Array.fromAsync(cadre.runs.batch("delete", filter));
  expect(first).toMatchObject({ runId, done: 1, failed: 1, total: 2, error: { reason: "RUN_OPEN" } });
  expect(last).toEqual({ runId: "", error: undefined, done: 2, failed: 1, total: 2 });
  expect(fake.batches[0]).toMatchObject({
    action: BatchAction.DELETE,
    filter: { states: [RunState.PARKED], labels: { a: "b" }, createdBefore: { seconds: 0n } },
  });
});
