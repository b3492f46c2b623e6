/**
 * Checks a history against the code at hand: each entry has to be one that the
 * decisions would make in the state before it, and what follows from an entry
 * has to follow it. Nothing is executed. What came from outside, such as a
 * tool's result, a message or a time, is taken as it is; what was made of it is
 * not.
 */
import { AppError } from "../../runtime/errors/app-error.ts";
import type { Entry, EntryBody, GraphAccepted } from "./entry.ts";
import { compileGraph } from "./graph/plan.ts";
import { type BeginLoop, GraphRun } from "./graph-run.ts";
import { expectedAfter } from "./replay-consequences.ts";
import { problemOf } from "./replay-graph.ts";
import { type Expected, type Problem, wordsOf } from "./replay-problem.ts";
import { turnProblemOf } from "./replay-turn.ts";
import { fold, type Run } from "./run.ts";

/** Where a history is not what this code would have made. */
export interface Divergence {
  /** The number of the entry. */
  readonly seq: number;
  readonly message: string;
  /** What was expected, and what is there instead, a line each as in a diff. */
  readonly diff: readonly string[];
}

/** What came of a replay. */
export interface Replayed {
  /** How many entries were replayed before the divergence, or in all. */
  readonly entries: number;
  readonly divergence: Divergence | undefined;
}

/**
 * Replays a history, whose values that are kept elsewhere have been read.
 *
 * @param beginLoop makes the run of an agent's step
 */
export function replay(runId: string, entries: readonly Entry[], beginLoop: BeginLoop): Replayed {
  const first = entries[0];
  if (first?.body.type === "graph.accepted") return replayGraph(runId, entries, first.body, beginLoop);
  return replayTurn(runId, entries);
}

function replayGraph(
  runId: string,
  entries: readonly Entry[],
  accepted: GraphAccepted,
  beginLoop: BeginLoop,
): Replayed {
  let seq = 1;
  try {
    const run = new GraphRun(runId, compileGraph(accepted.graph), entries[0] as Entry, beginLoop);
    const pending: Expected[] = [];
    for (const entry of entries.slice(1)) {
      seq += 1;
      const due = pending.shift();
      if (due !== undefined && !due.matches(entry.body)) {
        return diverged(seq, {
          message: "what has to follow is missing",
          expected: due.what,
          found: wordsOf(entry.body),
        });
      }
      const problem = problemOf(run, entry, due !== undefined, entries[seq - 2]?.body);
      if (problem !== undefined) return diverged(seq, problem);
      run.apply(entry);
      pending.push(...expectedAfter(run, entry.body));
    }
    const due = pending.shift();
    // What follows from an entry is stored with it.
    if (due !== undefined) {
      return diverged(seq + 1, { message: "it ends too early", expected: due.what, found: "the end of the history" });
    }
    return { entries: entries.length, divergence: undefined };
  } catch (error) {
    return refused(error, seq, entries[seq - 1]?.body);
  }
}

function replayTurn(runId: string, entries: readonly Entry[]): Replayed {
  let run: Run | undefined;
  let seq = 0;
  try {
    for (const entry of entries) {
      seq += 1;
      const problem = run === undefined ? undefined : turnProblemOf(run, entry.body);
      if (problem !== undefined) return diverged(seq, problem);
      run = fold(runId, run, entry);
    }
    return { entries: entries.length, divergence: undefined };
  } catch (error) {
    return refused(error, seq, entries[seq - 1]?.body);
  }
}

/** A history that the fold refuses. */
function refused(error: unknown, seq: number, body: EntryBody | undefined): Replayed {
  if (!(error instanceof AppError) || error.reason === "INTERNAL") throw error;
  const found = body === undefined ? "nothing" : wordsOf(body);
  return diverged(seq, { message: error.message, expected: "an entry that can follow", found });
}

function diverged(seq: number, { message, expected, found }: Problem): Replayed {
  const place = `entry ${seq}`;
  return {
    entries: seq - 1,
    divergence: { seq, message: `${place}: ${message}`, diff: [`- ${place}: ${expected}`, `+ ${place}: ${found}`] },
  };
}
