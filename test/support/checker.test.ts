import { expect, test } from "vitest";
import { check, describeVerdict, type Evidence, type RunHistory } from "./checker.ts";
import type { ClientPhase, ClientRecord } from "./client-log.ts";
import { randomOf } from "./fault-driver.ts";
import type { LedgerRecord } from "./ledger.ts";

// Logs made by hand, each with one thing wrong: a checker that overlooks it
// would let a broken system pass.

const steps = ["one", "two"];

function call(run: string, step: string, atMs: number, more: Partial<LedgerRecord> = {}): LedgerRecord {
  return {
    n: 0,
    atMs,
    type: "called",
    run,
    step,
    key: `${run}-${step}`,
    attempt: 1,
    worker: 1,
    applied: false,
    ...more,
  };
}

function effect(run: string, step: string, atMs: number, more: Partial<LedgerRecord> = {}): LedgerRecord {
  return call(run, step, atMs, { type: "effect", applied: true, ...more });
}

function said(run: string, phase: ClientPhase, id?: string): ClientRecord {
  return { atMs: 0, run, phase, ...(id === undefined ? {} : { id }) };
}

function history(id: string, more: Partial<RunHistory> = {}): RunHistory {
  return {
    id,
    state: "succeeded",
    seqs: [1, 2, 3, 4],
    ends: 1,
    endedAtMs: 100,
    stepEndedAtMs: new Map([
      ["one", 30],
      ["two", 60],
    ]),
    ...more,
  };
}

/** Two runs without a fault. */
function good(): Evidence {
  return {
    ledger: ["a", "b"].flatMap((run) => [
      call(run, "one", 10),
      effect(run, "one", 20),
      call(run, "two", 40),
      effect(run, "two", 50),
    ]),
    client: ["a", "b"].flatMap((run) => [said(run, "attempted"), said(run, "acked", `id-${run}`)]),
    histories: new Map(["a", "b"].map((run) => [run, history(`id-${run}`)])),
    faults: [],
    steps,
    floor: 2,
  };
}

test("logs in which nothing is wrong pass, repetitions of a step in flight included", () => {
  const evidence = good();
  const verdict = check({
    ...evidence,
    ledger: [...evidence.ledger, call("a", "one", 25, { attempt: 2 }), effect("a", "one", 26, { applied: false })],
    client: [...evidence.client, said("c", "attempted"), said("c", "refused")],
    faults: [
      { atMs: 12, what: "server 1", isQuiet: true },
      { atMs: 45, what: "worker 2" },
      { atMs: 200, what: "server 3" },
    ],
  });
  expect(verdict).toMatchObject({ attempted: 3, acked: 2, succeeded: 2, retried: 1, inFlight: 2, problems: [] });
  // One step was called again 13 ms after the first fault, the other one ended 18 ms after it.
  expect(verdict.longestResumeMs).toEqual({ server: 13, worker: 15 });
  expect(verdict.longestFullResumeMs).toEqual({ server: 18 });
});

test("a step that is not seen again for long is named, if nothing else was hurt meanwhile", () => {
  const evidence = good();
  const late = new Map([
    ["one", 30],
    ["two", 20_000],
  ]);
  const histories = new Map([
    ...evidence.histories,
    ["a", history("id-a", { stepEndedAtMs: late, endedAtMs: 20_001 })],
  ]);
  const judged = (isQuiet: boolean) =>
    check({ ...evidence, histories, faults: [{ atMs: 45, what: "server 1", isQuiet }] });
  expect(judged(true).slow).toEqual(["a/two was seen again 19955 ms after server 1"]);
  expect(judged(false).slow).toEqual([]);
});

test("a run whose answer was lost and that is there is recovered, not unexpected", () => {
  const evidence = good();
  const client = evidence.client.filter(({ run, phase }) => run !== "a" || phase === "attempted");
  expect(check({ ...evidence, client: [...client, said("a", "unknown")], floor: 1 })).toMatchObject({
    recovered: 1,
    unexpected: 0,
    problems: [],
  });
});

test.each<[string, Partial<Evidence> | ((evidence: Evidence) => Partial<Evidence>), object, RegExp]>([
  [
    "an acknowledged run that is gone",
    { histories: new Map([["a", history("id-a")]]) },
    { lost: 1 },
    /b \(id-b\) was acknowledged and is not there/,
  ],
  [
    "an acknowledged run under another id",
    {
      histories: new Map([
        ["a", history("id-a")],
        ["b", history("id-x")],
      ]),
    },
    { lost: 1 },
    /is there as id-x/,
  ],
  [
    "a key that was acknowledged twice, as two runs",
    ({ client }) => ({ client: [...client, said("b", "acked", "id-y")] }),
    {},
    /acknowledged as id-b and as id-y/,
  ],
  [
    "a run that failed",
    {
      histories: new Map([
        ["a", history("id-a")],
        ["b", history("id-b", { state: "failed", reason: "INTERNAL" })],
      ]),
    },
    { lost: 1, succeeded: 1 },
    /is failed: INTERNAL/,
  ],
  [
    "a run that never ended",
    {
      histories: new Map([
        ["a", history("id-a")],
        ["b", history("id-b", { state: "open", ends: 0 })],
      ]),
    },
    { lost: 1 },
    /is open/,
  ],
  [
    "a run that succeeded without an effect",
    ({ ledger }) => ({ ledger: ledger.filter(({ run, step }) => run !== "a" || step !== "two") }),
    { lost: 1 },
    /succeeded without two/,
  ],
  [
    "an effect that happened twice",
    ({ ledger }) => ({ ledger: [...ledger, effect("a", "one", 21, { key: "other" })] }),
    { doubled: 1 },
    /effect of a\/one happened 2 times/,
  ],
  [
    "a step that was called under two keys, though only one effect happened",
    ({ ledger }) => ({ ledger: [...ledger, call("a", "one", 21, { key: "other" })] }),
    { doubled: 0 },
    /a\/one was called under 2 keys/,
  ],
  [
    "a step that was called after it had ended",
    ({ ledger }) => ({ ledger: [...ledger, call("a", "one", 31)] }),
    { late: 1 },
    /a\/one was called 1 ms after it was stored as ended/,
  ],
  [
    "a step that was called after the end of its run",
    ({ ledger }) => ({ ledger: [...ledger, call("a", "two", 101)] }),
    { late: 1 },
    /1 ms after the end of its run/,
  ],
  [
    "a history with a gap",
    {
      histories: new Map([
        ["a", history("id-a", { seqs: [1, 2, 4, 5] })],
        ["b", history("id-b")],
      ]),
    },
    { broken: 1 },
    /has 4 where 3 should be/,
  ],
  [
    "a history with a repetition",
    {
      histories: new Map([
        ["a", history("id-a", { seqs: [1, 2, 2, 3] })],
        ["b", history("id-b")],
      ]),
    },
    { broken: 1 },
    /has 2 where 3 should be/,
  ],
  [
    "a history with two ends",
    {
      histories: new Map([
        ["a", history("id-a", { ends: 2 })],
        ["b", history("id-b")],
      ]),
    },
    { broken: 1 },
    /has 2 ends/,
  ],
  [
    "a run that nobody asked for",
    ({ histories }) => ({ histories: new Map([...histories, ["x", history("id-x")]]) }),
    { unexpected: 1 },
    /x \(id-x\) is there and was never asked for/,
  ],
  [
    "a run that was refused and is there all the same",
    ({ client }) => ({
      client: [...client.filter(({ run, phase }) => run !== "b" || phase === "attempted"), said("b", "refused")],
      floor: 1,
    }),
    { unexpected: 1 },
    /is there and was refused/,
  ],
  [
    "an effect of a run that is not there",
    ({ ledger }) => ({ ledger: [...ledger, effect("ghost", "one", 5)] }),
    {},
    /ghost\/one has an effect, and its run is not there/,
  ],
  ["too few acknowledged runs to say anything", { floor: 3 }, {}, /only 2 runs were acknowledged/],
])("%s is found", (_, change, figures, problem) => {
  const evidence = good();
  const verdict = check({ ...evidence, ...(typeof change === "function" ? change(evidence) : change) });
  expect(verdict).toMatchObject(figures);
  expect(verdict.problems.join("\n")).toMatch(problem);
  expect(describeVerdict(verdict)).toMatch(problem);
});

test("the same seed gives the same numbers, within their bounds", () => {
  const [one, two, other] = [randomOf(7), randomOf(7), randomOf(8)].map((random) =>
    Array.from({ length: 1_000 }, () => random.between(50, 1_500)),
  );
  expect(one).toEqual(two);
  expect(one).not.toEqual(other);
  expect(Math.min(...(one ?? []))).toBeGreaterThanOrEqual(50);
  expect(Math.max(...(one ?? []))).toBeLessThanOrEqual(1_500);
});
