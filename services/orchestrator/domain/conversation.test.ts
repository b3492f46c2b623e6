import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { newId } from "../../runtime/ids/id.ts";
import { estimateTokens, fitContext, type PastTurn, promptBudget, runMessages } from "./conversation.ts";
import { foldAll, type Run } from "./run.ts";

function run(text: string): Run {
  return foldAll(newId("run"), [
    {
      atMs: 0,
      body: {
        type: "run.accepted",
        sessionId: newId("ses"),
        principal: new Uint8Array(),
        requestId: newId("req"),
        traceparent: "",
        agent: {
          agentId: newId("agt"),
          revision: 1,
          digest: "",
          name: "a",
          model: "m",
          instructions: "",
          tools: [],
          maxToolRounds: 0,
          maxTokens: 0,
          maxDurationMs: 0,
          encoded: new Uint8Array(),
        },
        text,
        answerSchema: undefined,
        leavesOut: [],
      },
    },
  ]);
}

const past = (index: number, tokens: number): PastTurn => ({
  runId: `run ${index}`,
  tokens,
  messages: [{ role: "user", text: `turn ${index}` }],
});

describe("the context", () => {
  test("never exceeds the budget, is a suffix of the history, and leaves out no turn that would fit", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 400 }), { maxLength: 20 }),
        fc.integer({ min: 200, max: 2_000 }),
        (sizes, contextTokens) => {
          const history = sizes.map((tokens, index) => past(index, tokens));
          const own = run("hello");
          const fitted = fitContext(history, 3, own, 10, contextTokens);
          if (!fitted.fits) throw new Error("the turn alone fits");
          const kept = fitted.messages.length - runMessages(own).length;
          const shown = history.slice(history.length - kept);
          expect(fitted.messages.slice(0, kept)).toEqual(shown.flatMap((turn) => turn.messages));
          expect(fitted.turnsLeftOut).toBe(3 + history.length - kept);
          const ownTokens = 10 + 8 + estimateTokens("hello");
          const used = ownTokens + shown.reduce((sum, turn) => sum + turn.tokens, 0);
          expect(used).toBeLessThanOrEqual(promptBudget(contextTokens));
          const next = history[history.length - kept - 1];
          if (next !== undefined) expect(used + next.tokens).toBeGreaterThan(promptBudget(contextTokens));
        },
      ),
    );
  });

  test("does not fit when the turn at hand is too long for it", () => {
    expect(fitContext([], 0, run("x".repeat(6_000)), 0, 2_000)).toMatchObject({ fits: false, budget: 1_500 });
  });

  test("counts bytes, not characters", () => {
    expect(estimateTokens("äöü")).toBe(2);
    expect(estimateTokens("日本語")).toBe(3);
    expect(estimateTokens("")).toBe(0);
  });
});
