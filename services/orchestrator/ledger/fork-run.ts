/**
 * Forks a run: a new one holds on to what the old one did, and has the results
 * of the steps that had succeeded at a checkpoint; all else it does anew.
 */
import { toBinary } from "@bufbuild/protobuf";
import type { CommandReply } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { type ForkRunRequest, ForkRunRequestSchema, RunService } from "@cadre/gen/cadre/orchestrator/v1/run_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { fromUuid, toUuid } from "../../runtime/ids/id.ts";
import type { Engine } from "../app/engine.ts";
import { type Asking, assertFits, assertValue } from "../app/graph/start-run.ts";
import type { Entry, EntryBody, GraphAccepted, GraphStarted, Payload } from "../domain/entry.ts";
import { placeKey } from "../domain/graph-run.ts";
import { stepId } from "../domain/step-id.ts";
import type { Payloads } from "../store/payloads.ts";
import { fromProtoValue } from "../store/proto-values.ts";
import type { RunRow } from "../store/run-read-store.ts";
import { checkpointsOf } from "./checkpoint.ts";
import { type ReadHistoryDeps, readHistory } from "./read-history.ts";

export interface ForkRunDeps extends ReadHistoryDeps {
  readonly payloads: Pick<Payloads, "keep" | "load">;
  readonly starter: Pick<Engine, "startRun">;
}

const methodName = `${RunService.typeName}/${RunService.method.forkRun.name}`;

/**
 * Starts a run from a checkpoint of another one.
 *
 * @throws AppError CHECKPOINT_NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT, and what starting a run throws
 */
export async function forkRun(
  deps: ForkRunDeps,
  source: RunRow,
  request: ForkRunRequest,
  asking: Asking,
  signal: AbortSignal,
): Promise<CommandReply> {
  const history = await readHistory(deps, source);
  const [accepted, started] = beginning(history);
  const upTo = endOfCheckpoint(history, request.checkpoint);
  const input = await inputOf(deps, source, request, accepted);
  const carried = await carriedOf(deps, source, history.slice(2, upTo));
  return await deps.starter.startRun(
    {
      principal: asking.principal,
      requestId: asking.requestId,
      traceparent: asking.traceparent,
      idempotency:
        asking.idempotencyKey === ""
          ? undefined
          : {
              orgUuid: toUuid("org", asking.principal.orgId),
              method: methodName,
              key: asking.idempotencyKey,
              request: toBinary(ForkRunRequestSchema, request),
            },
      graph: accepted.graph,
      checkTools: () => undefined, // they are those that were checked when the first run started
      agent: accepted.agent,
      input,
      labels: Object.keys(request.labels).length > 0 ? request.labels : accepted.labels,
      maxSteps: accepted.maxSteps,
      maxDurationMs: accepted.maxDurationMs,
      scheduleId: undefined,
      fork: {
        runId: fromUuid("run", source.runId),
        checkpoint: request.checkpoint,
        started,
        carried: (runId) => carried.map((body) => ofRun(runId, body)),
      },
    },
    signal,
  );
}

type Carried = Extract<EntryBody, { type: "graph.step.succeeded" | "step.skipped" }>;

function beginning(history: readonly Entry[]): readonly [GraphAccepted, GraphStarted] {
  const [accepted, started] = history.map(({ body }) => body);
  if (accepted?.type !== "graph.accepted" || started?.type !== "graph.started") {
    throw new AppError("CHECKPOINT_NOT_FOUND", "the run did not begin, so it has no checkpoint");
  }
  return [accepted, started];
}

/** How many entries lead to a checkpoint; 0 is the start. */
function endOfCheckpoint(history: readonly Entry[], number: number): number {
  if (number === 0) return 2;
  const checkpoints = checkpointsOf(history);
  const found = checkpoints[number - 1];
  if (found === undefined) {
    throw new AppError("CHECKPOINT_NOT_FOUND", `the run has ${checkpoints.length} checkpoints`);
  }
  return found.seq;
}

async function inputOf(
  { payloads }: ForkRunDeps,
  { orgId }: RunRow,
  request: ForkRunRequest,
  accepted: GraphAccepted,
): Promise<Payload> {
  if (request.input === undefined) return await keptAgain(payloads, orgId, accepted.input);
  const value = fromProtoValue(request.input);
  assertValue("input", value);
  assertFits(accepted.graph, value);
  return await payloads.keep(orgId, value);
}

/** The results of steps that had succeeded, with all elements of fan-outs, and the skips that they stand on. */
async function carriedOf(deps: ForkRunDeps, { orgId }: RunRow, entries: readonly Entry[]): Promise<readonly Carried[]> {
  const whole = new Set(
    entries.flatMap(({ body }) =>
      body.type === "graph.step.succeeded" && body.place.index === undefined && !body.place.compensation
        ? [body.place.name]
        : [],
    ),
  );
  const carried: Carried[] = [];
  for (const { body } of entries) {
    if (body.type === "step.skipped") carried.push(body);
    if (body.type !== "graph.step.succeeded" || body.place.compensation || !whole.has(body.place.name)) continue;
    const output = body.output === undefined ? undefined : await keptAgain(deps.payloads, orgId, body.output);
    // The message stays in the other run's history.
    carried.push({ ...body, attempt: 0, output, signalSeq: 0, inputTokens: 0, outputTokens: 0, carried: true });
  }
  return carried;
}

/** A value is kept again for the run that refers to it from now on. */
async function keptAgain(payloads: ForkRunDeps["payloads"], orgId: string, payload: Payload): Promise<Payload> {
  return payload.blob === undefined ? payload : await payloads.keep(orgId, await payloads.load(orgId, payload));
}

function ofRun(runId: string, body: Carried): EntryBody {
  return body.type === "step.skipped" ? body : { ...body, stepId: stepId(runId, `step:${placeKey(body.place)}`) };
}
