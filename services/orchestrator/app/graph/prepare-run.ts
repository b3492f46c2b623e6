import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Principal, PrincipalSchema } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { type CommandReply, CommandReplySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { RunSchema, RunState } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { toUuid } from "../../../runtime/ids/id.ts";
import type { EntryBody, GraphAccepted, GraphStarted, Payload, PinnedAgent, PinnedTool } from "../../domain/entry.ts";
import type { Graph } from "../../domain/graph/graph.ts";
import type { AnsweredCommand } from "../../store/append-store.ts";
import { graphDigest } from "../../store/graph-codec.ts";
import { answerTo, type RepeatableCommand } from "../idempotency.ts";
import { planOf } from "./plans.ts";
import { type PinSources, resolvePins } from "./resolve-pins.ts";

/** A run to start. */
export interface RunStart {
  readonly principal: Principal;
  readonly requestId: string;
  /** Empty if there is none. */
  readonly traceparent: string;
  /** Undefined without a key. */
  readonly idempotency: RepeatableCommand | undefined;
  /** Checked, but for how it fits its tools. */
  readonly graph: Graph;
  /** Checks that the graph fits the tools that it names. Throws INVALID_GRAPH. */
  readonly checkTools: (tools: readonly PinnedTool[]) => void;
  /** The agent whose graph it is; undefined for an inline one. */
  readonly agent: PinnedAgent | undefined;
  readonly input: Payload;
  readonly labels: Readonly<Record<string, string>>;
  /** 0 takes the default. */
  readonly maxSteps: number;
  /** 0 takes the default. */
  readonly maxDurationMs: number;
  readonly scheduleId: string | undefined;
  /** The run that it is forked from: what it holds on to, and what had succeeded. */
  readonly fork:
    | {
        readonly runId: string;
        readonly checkpoint: number;
        readonly started: GraphStarted;
        /** The results to carry over, for the new run's id. */
        readonly carried: (runId: string) => readonly EntryBody[];
      }
    | undefined;
}

/** What stores a run, and what its caller is answered with. */
export interface PreparedRun {
  readonly accepted: GraphAccepted;
  readonly bodies: readonly EntryBody[];
  readonly reply: CommandReply;
  readonly answered: Omit<AnsweredCommand, "rootId"> | undefined;
}

const defaults = { maxSteps: 10_000, maxDurationMs: 24 * 3_600_000 } as const;

/**
 * Resolves what a run will hold on to, and makes its first entries.
 *
 * @throws AppError AGENT_NOT_FOUND, TOOL_NOT_FOUND, MODEL_NOT_FOUND, MODEL_KEY_MISSING, INVALID_GRAPH
 */
export async function prepareRun(
  sources: PinSources,
  start: RunStart,
  runId: string,
  signal: AbortSignal,
): Promise<PreparedRun> {
  const { principal, requestId, traceparent, graph, fork, idempotency } = start;
  const caller = { principal, requestId, traceparent, runId };
  const started =
    fork?.started ?? (await resolvePins(sources, planOf(graph), toUuid("org", principal.orgId), caller, signal));
  start.checkTools(started.tools);
  const accepted: GraphAccepted = {
    type: "graph.accepted",
    principal: toBinary(PrincipalSchema, principal),
    requestId,
    traceparent,
    agent: start.agent,
    graph,
    digest: start.agent?.digest ?? graphDigest(graph),
    input: start.input,
    labels: start.labels,
    maxSteps: start.maxSteps || defaults.maxSteps,
    maxDurationMs: start.maxDurationMs || defaults.maxDurationMs,
    parent: undefined,
    depth: 0,
    forkedFrom: fork === undefined ? undefined : { runId: fork.runId, checkpoint: fork.checkpoint },
    scheduleId: start.scheduleId,
  };
  const run = create(RunSchema, {
    runId,
    name: graph.name,
    state: RunState.RUNNING,
    labels: { ...start.labels },
    createdAt: timestampFromMs(Date.now()),
  });
  const outcome = { case: fork === undefined ? ("startRun" as const) : ("forkRun" as const), value: { run } };
  const reply = create(CommandReplySchema, { outcome });
  return {
    accepted,
    bodies: [started, ...(fork?.carried(runId) ?? [])],
    reply,
    answered: idempotency === undefined ? undefined : answerTo(idempotency, reply),
  };
}
