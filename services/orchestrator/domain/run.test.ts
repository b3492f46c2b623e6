import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { newId } from "../../runtime/ids/id.ts";
import { chainHash, emptyChain } from "./chain.ts";
import type { Entry, EntryBody, PinnedAgent, RunAccepted, ToolCall, ToolOutcome } from "./entry.ts";
import { type Action, maxModelFailures, nextAction } from "./next-action.ts";
import { fold, foldAll, type Run } from "./run.ts";
import { modelStepId, toolStepId } from "./step-id.ts";

const agent: PinnedAgent = {
  agentId: newId("agt"),
  revision: 1,
  digest: "sha256:0",
  name: "test",
  model: "scripted",
  instructions: "",
  tools: ["*"],
  maxToolRounds: 0,
  maxTokens: 0,
  maxDurationMs: 0,
  encoded: new Uint8Array(),
};

const accepted: RunAccepted = {
  type: "run.accepted",
  sessionId: newId("ses"),
  principal: new Uint8Array(),
  requestId: newId("req"),
  traceparent: "",
  agent,
  text: "hello",
  answerSchema: undefined,
  leavesOut: [],
};

/** What the world answers in one history, whoever asks: by round and call. */
interface World {
  /** How many calls each model round asks for; the round after the last one answers. */
  readonly rounds: readonly number[];
  /** Whether the first attempt of a round's model call fails. */
  readonly cuts: readonly boolean[];
  readonly toolRounds: number;
}

const worlds: fc.Arbitrary<World> = fc.record({
  rounds: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 4 }),
  cuts: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
  toolRounds: fc.integer({ min: 1, max: 5 }),
});

function calls(world: World, round: number): readonly ToolCall[] {
  return Array.from({ length: world.rounds[round - 1] ?? 0 }, (_, index) => ({
    callId: `call-${round}-${index}`,
    tool: "echo",
    arguments: { round, index },
    malformed: "",
  }));
}

/**
 * Executes a run from its state to its end, one entry at a time, and gives the
 * entries. Effects are counted by the step's key, as a tool that honours it does.
 */
function execute(world: World, runId: string, from: Run | undefined, effects: Map<string, number>): Entry[] {
  const written: Entry[] = [];
  let run = from;
  const write = (body: EntryBody): void => {
    const entry = { atMs: 0, body };
    run = fold(runId, run, entry);
    written.push(entry);
  };
  if (run === undefined) write(accepted);
  for (let steps = 0; steps < 1_000; steps += 1) {
    if (run === undefined) throw new Error("no run");
    const action: Action = nextAction(run);
    switch (action.type) {
      case "nothing":
        return written;
      case "start":
        write({
          type: "run.started",
          tools: [],
          contextTokens: 1_000,
          caps: { toolRounds: world.toolRounds, tokens: 1e9, durationMs: 1e9 },
        });
        break;
      case "model": {
        const { stepId, attempt, round } = action;
        write({
          type: "step.started",
          stepId,
          attempt,
          plan: { kind: "model", round, turnsLeftOut: 0, within: undefined },
        });
        const failed = (run as Run).rounds.at(-1)?.failures ?? 0;
        if (world.cuts[round - 1] === true && failed === 0) {
          const error = { reason: "MODEL_FAILED", message: "cut" } as const;
          write({ type: "step.failed", stepId, attempt, error, retryable: true });
          break;
        }
        const toolCalls = calls(world, round);
        write({
          type: "step.succeeded",
          stepId,
          attempt,
          result: { kind: "model", text: `text ${round}`, toolCalls, inputTokens: 1, outputTokens: 1 },
        });
        break;
      }
      case "tools":
        for (const { stepId, attempt, index } of action.calls) {
          write({
            type: "step.started",
            stepId,
            attempt,
            plan: { kind: "tool", round: action.round, index, within: undefined },
          });
        }
        for (const { stepId, attempt, index } of action.calls) {
          if (!effects.has(stepId)) effects.set(stepId, 1);
          const outcome: ToolOutcome = { type: "value", value: index };
          write({ type: "step.succeeded", stepId, attempt, result: { kind: "tool", outcome } });
        }
        break;
      case "stop":
        write({ type: "run.ended", end: { state: "cancelled", toolsMayStillRun: [] }, started: true });
        break;
      case "end":
        write({ type: "run.ended", end: action.end, started: true });
        break;
      case "check-answer":
        throw new Error("no schema was asked for");
    }
  }
  throw new Error("the run has no end");
}

/** What must not depend on crashes. */
function essence(run: Run): unknown {
  return {
    end: run.ended?.end,
    rounds: run.rounds.map(({ stepId, result, tools }) => ({
      stepId,
      result,
      tools: tools.map((tool) => ({ stepId: tool?.stepId, outcome: tool?.outcome })),
    })),
    usage: run.usage,
  };
}

describe("a run", () => {
  test("comes to the same end from every prefix of its journal, with each effect once", () => {
    fc.assert(
      fc.property(worlds, (world) => {
        const runId = newId("run");
        const effects = new Map<string, number>();
        const journal = execute(world, runId, undefined, effects);
        const whole = foldAll(runId, journal);
        for (let crash = 1; crash <= journal.length; crash += 1) {
          const prefix = journal.slice(0, crash);
          const again = new Map(effects);
          const resumed = execute(world, runId, foldAll(runId, prefix), again);
          expect(essence(foldAll(runId, [...prefix, ...resumed]))).toEqual(essence(whole));
          expect(again).toEqual(effects);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("comes to the same end through a crash after every entry", () => {
    fc.assert(
      fc.property(worlds, (world) => {
        const runId = newId("run");
        const effects = new Map<string, number>();
        const whole = foldAll(runId, execute(world, runId, undefined, effects));
        // Each process dies after one step's entries have been written.
        let journal: Entry[] = [{ atMs: 0, body: accepted }];
        for (let lives = 0; lives < 200; lives += 1) {
          const next = execute(world, runId, foldAll(runId, journal), effects);
          if (next.length === 0) break;
          // An attempt that was begun and cut short is begun again, for ever; so a life writes one entry more than it begins calls.
          journal = [...journal, ...next.slice(0, 4)];
        }
        expect(essence(foldAll(runId, journal))).toEqual(essence(whole));
      }),
      { numRuns: 40 },
    );
  });

  test("that is cancelled anywhere ends as cancelled and starts nothing", () => {
    fc.assert(
      fc.property(worlds, fc.nat(), (world, place) => {
        const runId = newId("run");
        const journal = execute(world, runId, undefined, new Map());
        const prefix = journal.slice(0, 1 + (place % (journal.length - 1)));
        const cancelled: Entry = {
          atMs: 0,
          body: { type: "cancel.requested", cause: "caller", requestId: "", reason: "", compensate: false },
        };
        const rest = execute(world, runId, foldAll(runId, [...prefix, cancelled]), new Map());
        expect(rest.map(({ body }) => body.type)).toEqual(["run.ended"]);
        expect(foldAll(runId, [...prefix, cancelled, ...rest]).ended?.end.state).toBe("cancelled");
      }),
    );
  });

  test("refuses a journal with an entry left out or repeated", () => {
    const runId = newId("run");
    const journal = execute({ rounds: [2, 1], cuts: [true, false, false], toolRounds: 5 }, runId, undefined, new Map());
    for (const [index, entry] of journal.entries()) {
      const repeated = [...journal.slice(0, index + 1), entry, ...journal.slice(index + 1)];
      expect(() => foldAll(runId, repeated), `entry ${index} repeated`).toThrow(/journal of the run/);
      // Without its last entry it is a journal of a run that goes on; and an attempt whose failure is not on
      // record looks like one that a crash cut short. These are the chain's to notice.
      if (index === journal.length - 1 || entry.body.type === "step.failed") continue;
      const without = [...journal.slice(0, index), ...journal.slice(index + 1)];
      expect(() => foldAll(runId, without), `entry ${index} left out`).toThrow(/journal of the run/);
    }
  });

  test("gives up on a model after three failures", () => {
    const runId = newId("run");
    let run = foldAll(runId, [
      { atMs: 0, body: accepted },
      {
        atMs: 0,
        body: { type: "run.started", tools: [], contextTokens: 1, caps: { toolRounds: 1, tokens: 9, durationMs: 9 } },
      },
    ]);
    const stepId = modelStepId(runId, "", 1);
    const error = { reason: "MODEL_FAILED", message: "down" } as const;
    for (let attempt = 1; attempt <= maxModelFailures; attempt += 1) {
      expect(nextAction(run)).toMatchObject({ type: "model", attempt });
      run = fold(runId, run, {
        atMs: 0,
        body: {
          type: "step.started",
          stepId,
          attempt,
          plan: { kind: "model", round: 1, turnsLeftOut: 0, within: undefined },
        },
      });
      run = fold(runId, run, { atMs: 0, body: { type: "step.failed", stepId, attempt, error, retryable: true } });
    }
    expect(nextAction(run)).toEqual({ type: "end", end: { state: "failed", error, toolsMayStillRun: [] } });
  });

  test("has step ids that are its own, stable, and ids of the contract", () => {
    const runId = newId("run");
    const ids = [
      modelStepId(runId, "", 1),
      modelStepId(runId, "", 2),
      toolStepId(runId, "", 1, 0),
      toolStepId(runId, "", 1, 1),
    ];
    expect(new Set(ids).size).toBe(4);
    expect(ids).toEqual([
      modelStepId(runId, "", 1),
      modelStepId(runId, "", 2),
      toolStepId(runId, "", 1, 0),
      toolStepId(runId, "", 1, 1),
    ]);
    for (const id of ids) expect(id).toMatch(/^stp_[0-9a-hjkmnp-tv-z]{26}$/);
    expect(modelStepId(newId("run"), "", 1)).not.toBe(ids[0]);
  });
});

test("the chain tells a changed byte, kind, place and run", () => {
  const run = "018f0000-0000-7000-8000-000000000001";
  const body = Uint8Array.of(1, 2, 3);
  const hash = chainHash(emptyChain, run, 1, 10, body);
  expect(hash).toHaveLength(32);
  for (const other of [
    chainHash(hash, run, 1, 10, body),
    chainHash(emptyChain, "018f0000-0000-7000-8000-000000000002", 1, 10, body),
    chainHash(emptyChain, run, 2, 10, body),
    chainHash(emptyChain, run, 1, 11, body),
    chainHash(emptyChain, run, 1, 10, Uint8Array.of(1, 2, 4)),
  ]) {
    expect(other).not.toEqual(hash);
  }
});
