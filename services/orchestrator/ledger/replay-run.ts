import { fromBinary } from "@bufbuild/protobuf";
import { type Principal, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError, type FailureReason } from "../../runtime/errors/app-error.ts";
import { toUuid } from "../../runtime/ids/id.ts";
import { loopRun } from "../app/graph/agent-loop.ts";
import type { ToolRunner } from "../app/ports.ts";
import { chainHash, emptyChain } from "../domain/chain.ts";
import type { Entry, PinnedTool } from "../domain/entry.ts";
import { replay } from "../domain/replay.ts";
import { damaged } from "../domain/run.ts";
import { hasEnded } from "../store/append-store.ts";
import { decodeEntry } from "../store/entry-codec.ts";
import type { JournalEntry } from "../store/journal-reader.ts";
import type { RunRow } from "../store/run-read-store.ts";
import { type ReadHistoryDeps, readHistory, withValues } from "./read-history.ts";

export interface ReplayDeps extends ReadHistoryDeps {
  readonly tools: Pick<ToolRunner, "resolve">;
  /** The name of the model that is meant by none. */
  readonly defaultModel: string;
}

/** What came of the check of a history. */
export interface ReplayResult {
  /** How many entries were replayed before the divergence, or in all. */
  readonly entries: number;
  readonly error: { readonly reason: FailureReason; readonly message: string } | undefined;
  /** What was expected, and what is there instead, a line each as in a diff. */
  readonly diff: readonly string[];
}

/** For whom definitions are looked up. */
export interface ReplayCaller {
  readonly principal: Principal;
  readonly requestId: string;
  readonly traceparent: string;
}

/**
 * Checks a stored history. One that has not ended is also held to the
 * definitions of the tools as they are now, since it goes on with them.
 *
 * @param runId `run_…`
 */
export async function replayStored(
  deps: ReplayDeps,
  row: RunRow,
  runId: string,
  caller: ReplayCaller,
  signal: AbortSignal,
): Promise<ReplayResult> {
  return await orDamaged(async () => {
    const entries = await readHistory(deps, row);
    const result = check(deps, runId, entries);
    if (result.error !== undefined || hasEnded(row.state)) return result;
    const diff = await driftOf(deps, entries, runId, caller, signal);
    if (diff.length === 0) return result;
    const message = "tools that the run holds on to are not what they were";
    return { ...result, error: { reason: "NON_DETERMINISTIC", message }, diff };
  });
}

/** Checks a history that was exported, here or elsewhere: its chain first, then what it says. */
export async function replayExported(
  deps: ReplayDeps,
  orgUuid: string,
  runId: string,
  parts: readonly JournalEntry[],
): Promise<ReplayResult> {
  return await orDamaged(async () => {
    const runUuid = toUuid("run", runId);
    const entries: Entry[] = [];
    let chain: Uint8Array = emptyChain;
    for (const { seq, kind, body, hash } of parts) {
      if (seq !== entries.length + 1) throw damaged(`misses its entry ${entries.length + 1}`);
      chain = chainHash(chain, runUuid, seq, kind, body);
      if (Buffer.compare(chain, hash) !== 0) throw damaged(`was changed at its entry ${seq}`);
      entries.push(await withValues(deps.payloads, orgUuid, decodeEntry(body)));
    }
    if (entries.length === 0) throw damaged("is empty");
    return check(deps, runId, entries);
  });
}

function check({ defaultModel }: ReplayDeps, runId: string, history: readonly Entry[]): ReplayResult {
  const { entries, divergence } = replay(runId, history, loopRun(defaultModel));
  if (divergence === undefined) return { entries, error: undefined, diff: [] };
  const { message, diff } = divergence;
  return { entries, error: { reason: "NON_DETERMINISTIC", message }, diff };
}

async function orDamaged(work: () => Promise<ReplayResult>): Promise<ReplayResult> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof AppError) || error.reason !== "DATA_LOSS") throw error;
    return { entries: 0, error: { reason: "DATA_LOSS", message: error.message }, diff: [] };
  }
}

/** How the definitions of tools differ from those that a history holds on to. */
async function driftOf(
  { tools }: ReplayDeps,
  history: readonly Entry[],
  runId: string,
  caller: ReplayCaller,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const started = history[1]?.body;
  const pinned = started?.type === "graph.started" || started?.type === "run.started" ? started.tools : [];
  const names = pinned.map(({ name }) => name);
  if (names.length === 0) return [];
  // Looked up for whom the run acts, as the run itself would.
  const first = history[0]?.body;
  const principal =
    first?.type === "graph.accepted" || first?.type === "run.accepted"
      ? fromBinary(PrincipalSchema, first.principal)
      : caller.principal;
  const now = await tools.resolve({ ...caller, principal, runId, sessionId: "", epoch: 0n }, names, signal);
  return pinned.flatMap((tool) =>
    differenceOf(
      tool,
      now.find(({ name }) => name === tool.name),
    ),
  );
}

function differenceOf(pinned: PinnedTool, current: PinnedTool | undefined): readonly string[] {
  if (current === undefined) return [`- tool ${pinned.name} ${pinned.digest}`, `+ tool ${pinned.name} is gone`];
  if (current.digest === pinned.digest) return [];
  const [before, after] = [linesOf(pinned), linesOf(current)];
  const [had, has] = [new Set(before), new Set(after)];
  return [
    `- tool ${pinned.name} ${pinned.digest}`,
    `+ tool ${pinned.name} ${current.digest}`,
    ...before.filter((line) => !has.has(line)).map((line) => `- ${pinned.name}: ${line}`),
    ...after.filter((line) => !had.has(line)).map((line) => `+ ${pinned.name}: ${line}`),
  ];
}

function linesOf({ description, inputSchema }: PinnedTool): readonly string[] {
  return JSON.stringify({ description, input_schema: inputSchema }, undefined, 1)
    .split("\n")
    .map((line) => line.trim());
}
