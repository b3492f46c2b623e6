import { randomUUID } from "node:crypto";
import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { toAppError } from "../../runtime/errors/failure.ts";
import { expiryMs } from "../../runtime/identity/principal.ts";
import type { Definition } from "../domain/definition.ts";
import { workerTopic } from "../store/wake-ups.ts";
import type { HandedCall } from "../store/worker-store.ts";
import { handoutKey, type ToolsDeps } from "./deps.ts";
import { limitOf, registrationLimits } from "./org-limits.ts";
import { checkDefinition } from "./register-tool.ts";
import { Waker } from "./waker.ts";

/** A worker that asks for calls. Ids are UUIDs. */
export interface WorkerOffer {
  readonly orgId: string;
  readonly name: string;
  readonly concurrency: number;
  readonly definitions: readonly Definition[];
  /** Whether it may serve a tool. */
  readonly mayServe: (tool: string) => boolean;
  /** Whether it may register definitions that the org does not have. */
  readonly mayRegister: boolean;
  /** The registration to continue; `undefined` for a new one. */
  readonly workerId: string | undefined;
  /** The hand-outs that it still runs. */
  readonly running: readonly string[];
  readonly principal: Principal;
}

/** What a worker's stream carries. */
export type WorkerMessage =
  | { readonly type: "registered"; readonly workerId: string; readonly digests: readonly string[] }
  | { readonly type: "call"; readonly call: HandedCall; readonly tool: string }
  | { readonly type: "cancel"; readonly handoutId: string }
  | { readonly type: "drain" }
  | { readonly type: "keepalive" };

const keepaliveMs = 5_000;
const doubtMs = 500;

/**
 * Registers a worker and brings it calls for as long as its stream, its
 * registration and its credential last.
 *
 * @throws AppError TOOL_NOT_GRANTED, INVALID_SCHEMA, INVALID_ARGUMENT,
 * ALREADY_EXISTS, SCOPE_MISSING, LIMIT_EXCEEDED, WORKER_NOT_FOUND (also later,
 * when the registration ends), PRINCIPAL_REVOKED (when the credential ends)
 */
export async function* connectWorker(
  deps: ToolsDeps,
  offer: WorkerOffer,
  signal: AbortSignal,
): AsyncGenerator<WorkerMessage> {
  const definitions = checkOffer(deps, offer);
  const streamId = randomUUID();
  const { workerId } = await deps.workers.connect({
    ...offer,
    subject: offer.principal.subject,
    definitions,
    mayAddDefinitions: offer.mayRegister,
    streamId,
    maxWorkers: await limitOf(deps.limits, offer.orgId, "workers"),
    limits: await registrationLimits(deps.limits, offer.orgId),
  });
  const toolByDigest = new Map(definitions.map(({ digest, definition }) => [digest, definition.name]));
  const waker = new Waker();
  const unsubscribe = deps.wakeUps.subscribe(workerTopic(workerId), waker.wake);
  const ignoreChanges = deps.principals.onChange(waker.wake);
  const ends = AbortSignal.any([signal, deps.stopping]);
  // What the worker knows of: hand-outs that it named or was sent, and cancellations that it was sent.
  let known = new Set(offer.running);
  let told = new Set<string>();
  let isFirst = true;
  try {
    yield { type: "registered", workerId, digests: definitions.map(({ digest }) => digest) };
    await deps.workers.fill(workerId);
    while (!signal.aborted) {
      if (deps.stopping.aborted) {
        yield { type: "drain" };
        return;
      }
      if (!(await mayAct(deps, offer.principal))) {
        // Nothing is handed out on doubt; the stream stays, as the doubt will pass.
        await waker.wait(doubtMs, ends);
        continue;
      }
      const news = await deps.workers.news(workerId, streamId, [...known]);
      if (news.type === "superseded") return;
      if (news.type === "gone") throw new AppError("WORKER_NOT_FOUND", "the registration has ended");
      const held = new Set(news.held);
      const stop = [...news.cancelled];
      if (isFirst) stop.push(...offer.running.filter((handoutId) => !held.has(handoutId)));
      for (const handoutId of news.unsent) {
        // What was handed out over an earlier stream may have begun, so it is told to stop.
        if (isFirst && offer.workerId !== undefined) stop.push(handoutId);
        else await deps.calls.endUnsent(workerId, handoutId);
      }
      known = new Set([...known, ...stop].filter((handoutId) => held.has(handoutId)));
      for (const call of news.handed) {
        known.add(call.handoutId);
        deps.handouts.set(handoutKey(workerId, call.handoutId), { toolId: call.toolId, digest: call.digest });
        yield { type: "call", call, tool: toolByDigest.get(call.digest) ?? "" };
      }
      for (const handoutId of stop) {
        if (!told.has(handoutId)) yield { type: "cancel", handoutId };
        told.add(handoutId);
      }
      told = new Set([...told].filter((handoutId) => held.has(handoutId)));
      isFirst = false;
      const wasWoken = await waker.wait(keepaliveMs, ends);
      if (!wasWoken && !ends.aborted) yield { type: "keepalive" };
    }
  } finally {
    unsubscribe();
    ignoreChanges();
    await leave(deps, workerId, streamId);
  }
}

/** Whether the worker's credential is valid; `false` if that cannot be found out now. */
async function mayAct(deps: ToolsDeps, principal: Principal): Promise<boolean> {
  if (Date.now() >= expiryMs(principal)) throw new AppError("PRINCIPAL_REVOKED", "the credential has expired");
  try {
    await deps.principals.assertMayAct(principal);
    return true;
  } catch (error) {
    const failure = toAppError(error);
    if (failure.reason === "PRINCIPAL_REVOKED") throw failure;
    deps.log.debug({ err: failure }, "a worker's credential cannot be checked now");
    return false;
  }
}

async function leave(deps: ToolsDeps, workerId: string, streamId: string): Promise<void> {
  try {
    await deps.workers.disconnect(workerId, streamId);
    await deps.workers.endExpired();
  } catch (error) {
    // The lease ends the registration, and a stream that does not answer is no harm until then.
    deps.log.warn({ err: error, workerId }, "the end of a worker's stream could not be recorded");
  }
}

function checkOffer(deps: ToolsDeps, offer: WorkerOffer): ReturnType<typeof checkDefinition>[] {
  const names = offer.definitions.map(({ name }) => name);
  const refused = names.find((name) => !offer.mayServe(name));
  if (refused !== undefined) {
    throw new AppError("TOOL_NOT_GRANTED", `the key does not name the tool ${refused}`, {
      metadata: { tool: refused },
    });
  }
  const twice = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (twice >= 0) {
    const violation = { field: `tools[${twice}].name`, message: "must be served once only", rule: "unique" };
    throw new AppError("INVALID_ARGUMENT", "tools: a name is there twice", { violations: [violation] });
  }
  return offer.definitions.map((definition, index) => checkDefinition(deps, definition, `tools[${index}]`));
}
