import { type JsonObject as ProtoJsonObject, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { CommandReply } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { RunService, type StartRunRequest, StartRunRequestSchema } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { AppError, type FieldViolation } from "../../../runtime/errors/app-error.ts";
import { toUuid } from "../../../runtime/ids/id.ts";
import { compileJsonSchema } from "../../../runtime/json-schema/json-schema.ts";
import type { PinnedAgent, PinnedTool } from "../../domain/entry.ts";
import type { Graph } from "../../domain/graph/graph.ts";
import { isDeeperThan, type Json, maxJsonDepth } from "../../domain/json.ts";
import type { Payloads } from "../../store/payloads.ts";
import { fromProtoValue, toPinnedAgent } from "../../store/proto-values.ts";
import { type AgentDeps, findAgent } from "../agents.ts";
import type { Engine } from "../engine.ts";
import type { RepeatableCommand } from "../idempotency.ts";
import type { CheckedGraph, CheckedGraphs } from "./checked-graphs.ts";
import type { RunStart } from "./prepare-run.ts";
export interface StartRunDeps extends AgentDeps {
  readonly engine: Pick<Engine, "startRun">;
  readonly graphs: CheckedGraphs;
  readonly payloads: Pick<Payloads, "keep">;
  /** Starts with a key that are under way here, by org and key: an equal one waits instead of racing. */
  readonly starting: Map<string, Promise<unknown>>;
}

/** Who asks for a run, and how the request is known. */
export type Asking = Pick<RunStart, "principal" | "requestId" | "traceparent"> & {
  /** Empty for none. */
  readonly idempotencyKey: string;
  /** The schedule by which it starts. */
  readonly scheduleId?: string;
};

/** How large an input or a message may be, in bytes of its encoding. */
export const maxValueBytes = 1024 * 1024;

const methodName = `${RunService.typeName}/${RunService.method.startRun.name}`;

/**
 * Checks a request to start a run, and starts it. Nothing is stored of one that
 * is refused.
 *
 * @throws AppError INVALID_GRAPH and INVALID_ARGUMENT with violations, LIMIT_EXCEEDED, AGENT_NOT_FOUND,
 * MODEL_NOT_FOUND, MODEL_KEY_MISSING, IDEMPOTENCY_KEY_REUSED, and what the engine throws
 */
export async function startRun(
  deps: StartRunDeps,
  request: StartRunRequest,
  asking: Asking,
  signal: AbortSignal,
): Promise<CommandReply> {
  const { principal, requestId, traceparent, idempotencyKey, scheduleId } = asking;
  const orgUuid = toUuid("org", principal.orgId);
  const { input, agent, checked } = await checkedRequest(deps, request, orgUuid);
  const start: RunStart = {
    principal,
    requestId,
    traceparent,
    idempotency: idempotencyKey === "" ? undefined : repeatable(orgUuid, request, idempotencyKey),
    graph: checked.graph,
    checkTools: (tools: readonly PinnedTool[]) => checked.check(tools),
    agent,
    input: await deps.payloads.keep(orgUuid, input),
    labels: request.labels,
    maxSteps: request.budget?.maxSteps ?? 0,
    maxDurationMs: request.budget?.maxDuration === undefined ? 0 : durationMs(request.budget.maxDuration),
    scheduleId,
    fork: undefined,
  };
  if (idempotencyKey === "") return await deps.engine.startRun(start, signal);
  return await oneAtATime(deps.starting, `${orgUuid} ${idempotencyKey}`, () => deps.engine.startRun(start, signal));
}

/**
 * Refuses a request that could not be started as things are now.
 *
 * @param orgUuid the org's UUID
 * @throws AppError INVALID_GRAPH, INVALID_ARGUMENT, AGENT_NOT_FOUND
 */
export async function assertStartable(deps: StartRunDeps, request: StartRunRequest, orgUuid: string): Promise<void> {
  await checkedRequest(deps, request, orgUuid);
}

async function checkedRequest(deps: StartRunDeps, request: StartRunRequest, orgUuid: string) {
  assertStorableLabels(request.labels);
  const input = request.input === undefined ? null : fromProtoValue(request.input);
  assertValue("input", input);
  const { agent, checked } = await definitionOf(deps, request, orgUuid);
  assertFits(checked.graph, input);
  return { input, agent, checked };
}

/** How long to wait for the run's end makes no other run of a request. */
function repeatable(orgUuid: string, request: StartRunRequest, key: string): RepeatableCommand {
  const { wait: _wait, ...asked } = request;
  return { orgUuid, method: methodName, key, request: toBinary(StartRunRequestSchema, asked) };
}

async function oneAtATime<T>(running: Map<string, Promise<unknown>>, key: string, work: () => Promise<T>): Promise<T> {
  const before = running.get(key);
  const turn = (before ?? Promise.resolve()).then(work, work);
  running.set(key, turn);
  try {
    return await turn;
  } finally {
    if (running.get(key) === turn) running.delete(key);
  }
}

/**
 * Refuses a value that is too large, or nests too deep, to be kept and shown.
 *
 * @throws AppError INVALID_ARGUMENT
 */
export function assertValue(field: string, value: Json): void {
  // Before the size: what nests without bound is not even written.
  if (isDeeperThan(value, maxJsonDepth)) throw invalid(field, `must not nest deeper than ${maxJsonDepth} levels`);
  if (Buffer.byteLength(JSON.stringify(value)) > maxValueBytes) throw invalid(field, "must not have more than 1 MiB");
}

async function definitionOf(
  deps: StartRunDeps,
  { definition }: StartRunRequest,
  orgUuid: string,
): Promise<{ readonly agent: PinnedAgent | undefined; readonly checked: CheckedGraph }> {
  switch (definition.case) {
    case "graph":
      return { agent: undefined, checked: deps.graphs.take(definition.value, "graph") };
    case "agent": {
      const { agentId, revision, digest, definition: found } = await findAgent(deps, orgUuid, "", definition.value);
      if (found?.graph === undefined) throw invalid("agent", `the agent ${definition.value} has no graph`);
      return {
        agent: toPinnedAgent(agentId, revision, digest, found),
        checked: deps.graphs.take(found.graph, "agent.graph"),
      };
    }
    case undefined:
      throw invalid("definition", "says neither an agent nor a graph");
  }
}

/**
 * Holds an input to the schema of its graph.
 *
 * @throws AppError INVALID_ARGUMENT with violations
 */
export function assertFits({ inputSchema }: Graph, input: Json): void {
  if (inputSchema === undefined) return;
  const violations: readonly FieldViolation[] = compileJsonSchema(inputSchema as ProtoJsonObject).validate(input);
  const first = violations[0];
  if (first === undefined) return;
  throw new AppError("INVALID_ARGUMENT", `input${first.field}: ${first.message}`, {
    violations: violations.map((violation) => ({ ...violation, field: `input${violation.field}` })),
  });
}

/** PostgreSQL's texts hold every character but this one. */
function assertStorableLabels(labels: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(labels)) {
    if (`${key}${value}`.includes("\0")) throw invalid("labels", "must not hold the character U+0000");
  }
}

function invalid(field: string, message: string): AppError {
  return new AppError("INVALID_ARGUMENT", `${field}: ${message}`, { violations: [{ field, message }] });
}
