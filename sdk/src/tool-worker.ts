// Invariants of a worker:
// 1. A hand-out runs once: its id again, while it runs or later, starts nothing.
//    Another hand-out with the idempotency key of one that runs shares its
//    outcome.
// 2. A call's result is reported until the server has taken it, or says that it
//    does not want it, or 15 minutes are over.
// 3. What a call printed is reported before its result, in order, each part
//    under a number that makes a repetition harmless.
// 4. A broken connection ends no call: the worker connects again under its id,
//    and names what it runs. A registration that ended does: its calls were
//    handed out to others, so their handlers are aborted and nothing is reported.
// 5. No calls are asked for after `close`, and `close` is bounded.
// 6. Heartbeats name every call, and come at least three times within the
//    shortest heartbeat timeout of those that are held.

import { fromJson, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { durationMs, timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type ConnectResponse,
  type ReportResultRequestSchema,
  ToolWorkerService,
  type WorkerCall,
} from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { Code } from "@connectrpc/connect";
import type { Caller } from "./caller.ts";
import { createConnectionWatch } from "./connection-watch.ts";
import { type DefinedTool, ToolFailure } from "./define-tool.ts";
import { CadreError, type CadreErrorReason, reasonNumber, toCadreError } from "./error.ts";
import type { StreamBreak } from "./resumed-stream.ts";
import { backoffMs, delay, isPassing } from "./retry.ts";
import { createToolOutput } from "./tool-output.ts";

/** How tools are served. */
export interface ServeOptions {
  /** How many calls run at once; 10 unless said, at most 1,000. */
  readonly concurrency?: number;
  /** A name for people, for example the host's; at most 128 characters. */
  readonly name?: string;
  /** Ends the worker as `close` does. */
  readonly signal?: AbortSignal;
  /** How long `close` lets running calls go on until it aborts them, in milliseconds; 30,000 unless said. */
  readonly drainTimeoutMs?: number;
  /** The longest wait between two connections, in milliseconds; 5,000 unless said. Starts at 100. */
  readonly maxReconnectDelayMs?: number;
  /**
   * How long the connection may be silent before it counts as broken, in
   * milliseconds; 20,000 unless said. The server sends something every 5 seconds.
   */
  readonly silenceTimeoutMs?: number;
  /** Told of each break in the connection, which repairs itself. */
  readonly onBreak?: (info: StreamBreak) => void;
  /**
   * Told of what a handler threw, of results that could not be delivered, and
   * why the worker ended; `console.error` unless said.
   */
  readonly onError?: (error: unknown, about: WorkerTrouble) => void;
}

/** What a worker has trouble with. */
export type WorkerTrouble =
  | { readonly kind: "connection" }
  | { readonly kind: "handler" | "report"; readonly tool: string; readonly callId: string };

/** An app that serves tools. */
export interface ToolWorker extends AsyncDisposable {
  /** The id of the registration, `wrk_…`; another one after the server has lost it. */
  readonly workerId: string;
  /**
   * Resolves when the worker has ended by `close` or its signal. Rejects with a
   * CadreError when the server refuses it for good, for example because its key
   * was revoked.
   */
  readonly closed: Promise<void>;
  /**
   * Takes no more calls, lets those that run end within `drainTimeoutMs`, then
   * aborts their signals and leaves. Idempotent.
   */
  close(): Promise<void>;
}

// Between hearing of an abort and leaving, a handler has this long to stop.
const abortGraceMs = 1_000;
// No call takes longer than a tool's greatest timeout, and so no server waits
// longer for its result.
const reportForMs = 15 * 60_000;
// The server keeps to the stated concurrency; what it hands out beyond waits. A
// heartbeat names 1,000 calls at most.
const maxCalls = 1_000;
// Hand-outs that ended are remembered for as long as one could come again: until
// the next connection, at most.
const maxRememberedCalls = 10_000;
const reportRetry = { initialDelayMs: 100, maxDelayMs: 5_000 } as const;

type Outcome = NonNullable<MessageInitShape<typeof ReportResultRequestSchema>["outcome"]>;

interface ActiveCall {
  readonly call: WorkerCall;
  /** Whether the server has no use for a report any more. */
  isForgotten: boolean;
  /** Aborted to stop the handler. */
  readonly controller: AbortController;
  /** How the handler ended. */
  readonly outcome: Promise<Outcome>;
}

/** The worker's life. */
type State =
  | { readonly kind: "serving" }
  | { readonly kind: "closing"; readonly done: Promise<void> }
  | { readonly kind: "closed" };

class CallCancelled extends Error {
  override readonly name = "CallCancelled";
}

class CallTimedOut extends Error {
  override readonly name = "CallTimedOut";
}

/** Connects a worker; resolves when the server has registered it. */
export function serveTools(
  caller: Caller,
  tools: readonly DefinedTool[],
  options: ServeOptions = {},
): Promise<ToolWorker> {
  const {
    concurrency = 10,
    name = "",
    signal,
    drainTimeoutMs = 30_000,
    maxReconnectDelayMs = 5_000,
    silenceTimeoutMs = 20_000,
    onBreak,
    // A library without a log of its own: losing an error in silence would be worse.
    // oxlint-disable-next-line no-console
    onError = (error, about) => console.error("cadre worker:", about, error),
  } = options;
  if (tools.length === 0) throw new TypeError("a worker serves at least one tool");
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 1000) {
    throw new TypeError("concurrency must be a whole number from 1 to 1000");
  }
  const toolByName = new Map(tools.map((tool) => [tool.name, tool]));
  if (toolByName.size !== tools.length) throw new TypeError("two tools of a worker have the same name");

  const { method } = ToolWorkerService;
  const stop = new AbortController();
  const registered = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  const active = new Map<string, ActiveCall>();
  const activeByKey = new Map<string, ActiveCall>();
  const waiting: WorkerCall[] = [];
  const ended = new Set<string>();
  let state: State = { kind: "serving" };
  let running = 0;
  let workerId = "";
  let heartbeatMs = 10_000;
  let pause = new AbortController();
  let connection = new AbortController();
  let onIdle: (() => void) | undefined;

  // --- calls

  function accept(call: WorkerCall): void {
    if (active.has(call.callId) || ended.has(call.callId)) return;
    if (waiting.some(({ callId }) => callId === call.callId)) return;
    // The pause before the next heartbeat may be too long for this one.
    if (call.heartbeatTimeout !== undefined) pause.abort();
    if (running < concurrency) start(call);
    else if (active.size + waiting.length < maxCalls) waiting.push(call);
    else void report(call, failure("TOOL_UNAVAILABLE", "the worker has more calls than it said it can take"));
  }

  function start(call: WorkerCall): void {
    running += 1;
    const controller = new AbortController();
    const twin = activeByKey.get(call.idempotencyKey);
    const entry: ActiveCall = { call, isForgotten: false, controller, outcome: outcomeOf(call, controller, twin) };
    active.set(call.callId, entry);
    if (call.idempotencyKey !== "") activeByKey.set(call.idempotencyKey, entry);
    void entry.outcome
      .then((outcome) => (entry.isForgotten ? undefined : report(call, outcome)))
      .finally(() => {
        running -= 1;
        active.delete(call.callId);
        remember(call.callId);
        if (activeByKey.get(call.idempotencyKey) === entry) activeByKey.delete(call.idempotencyKey);
        const next = waiting.shift();
        if (next !== undefined) start(next);
        else if (running === 0) onIdle?.();
      });
  }

  function remember(callId: string): void {
    ended.add(callId);
    const oldest = ended.size > maxRememberedCalls ? ended.values().next().value : undefined;
    if (oldest !== undefined) ended.delete(oldest);
  }

  /** Stops a call that is not ours any more. */
  function forget(callId: string): void {
    const entry = active.get(callId);
    if (entry === undefined) return;
    entry.isForgotten = true;
    entry.controller.abort(new CallCancelled("the call was given to another worker, or has ended"));
  }

  async function outcomeOf(call: WorkerCall, controller: AbortController, twin?: ActiveCall): Promise<Outcome> {
    if (twin !== undefined) {
      controller.signal.addEventListener("abort", () => twin.controller.abort(controller.signal.reason), {
        once: true,
      });
      const outcome = await twin.outcome;
      // An attempt that was cancelled says nothing about the next one.
      if (outcome.case !== "cancelled" || controller.signal.aborted) return outcome;
    }
    return runHandler(call, controller);
  }

  async function runHandler(call: WorkerCall, controller: AbortController): Promise<Outcome> {
    const tool = toolByName.get(call.tool);
    if (tool === undefined) return failure("TOOL_NOT_FOUND", "this worker does not serve the tool");
    const output = createToolOutput((seq, text) => reportOutput(call, controller, seq, text));
    const timer = setTimeout(
      () => controller.abort(new CallTimedOut("the call's time is over")),
      timeLeftMs(call, tool),
    );
    try {
      const result = await tool.run(call.arguments ?? {}, {
        signal: controller.signal,
        idempotencyKey: call.idempotencyKey,
        callId: call.callId,
        attempt: call.attempt,
        runId: call.runId,
        traceparent: call.traceparent,
        print: (text) => output.print(text),
      });
      return success(result);
    } catch (thrown) {
      if (controller.signal.reason instanceof CallCancelled) return { case: "cancelled", value: {} };
      if (controller.signal.reason instanceof CallTimedOut) {
        return failure("DEADLINE_EXCEEDED", "the tool took longer than the call may take");
      }
      if (thrown instanceof ToolFailure) return failure(thrown.reason, thrown.message);
      onError(thrown, { kind: "handler", tool: call.tool, callId: call.callId });
      return failure("TOOL_FAILED", "the tool failed");
    } finally {
      clearTimeout(timer);
      await output.end();
    }
  }

  function cancel(callId: string): void {
    const index = waiting.findIndex((call) => call.callId === callId);
    const call = waiting[index];
    if (call === undefined) {
      active.get(callId)?.controller.abort(new CallCancelled("the call was cancelled"));
      return;
    }
    waiting.splice(index, 1);
    remember(callId);
    void report(call, { case: "cancelled", value: {} });
  }

  // --- reports

  async function reportOutput(
    call: WorkerCall,
    controller: AbortController,
    seq: bigint,
    output: string,
  ): Promise<void> {
    const { callId } = call;
    await untilTaken(call, async () => {
      const { cancelled } = await caller.unary(method.reportOutput, { workerId, callId, seq, output });
      if (cancelled) controller.abort(new CallCancelled("the call was cancelled"));
    });
  }

  async function report(call: WorkerCall, outcome: Outcome): Promise<void> {
    const { callId } = call;
    let current = outcome;
    await untilTaken(call, async () => {
      try {
        await caller.unary(method.reportResult, { workerId, callId, outcome: current });
      } catch (thrown) {
        const error = toCadreError(thrown);
        const unfit = error.code === Code.InvalidArgument || error.reason === "MESSAGE_TOO_LARGE";
        if (!unfit || current.case === "error") throw error;
        // The server wants no such result; but it must learn that the call ended.
        current = failure("TOOL_RESULT_INVALID", error.message);
        await caller.unary(method.reportResult, { workerId, callId, outcome: current });
      }
    });
  }

  /** Repeats a report (2.). */
  async function untilTaken(call: WorkerCall, send: () => Promise<void>): Promise<void> {
    const until = Date.now() + reportForMs;
    for (let attempt = 1; ; attempt += 1) {
      if (active.get(call.callId)?.isForgotten === true) return;
      const usedId = workerId;
      try {
        return await send();
      } catch (thrown) {
        const error = toCadreError(thrown);
        if (error.reason === "CALL_NOT_FOUND") return forget(call.callId);
        if (error.reason === "WORKER_NOT_FOUND") {
          forget(call.callId);
          return loseRegistration(usedId);
        }
        if (!isPassing(error) || Date.now() > until || stop.signal.aborted) {
          onError(error, { kind: "report", tool: call.tool, callId: call.callId });
          return;
        }
        await delay(backoffMs(attempt, reportRetry, error.retryAfterMs), stop.signal).catch(() => undefined);
      }
    }
  }

  // --- connection

  /** The server does not know the registration any more: connects for a new one, without the old one's calls. */
  function loseRegistration(lostId: string): void {
    if (lostId === "" || lostId !== workerId) return;
    workerId = "";
    waiting.length = 0;
    for (const callId of active.keys()) forget(callId);
    connection.abort(new CadreError("UNAVAILABLE", "the registration has ended"));
  }

  function callIds(): string[] {
    return [...active.keys(), ...waiting.map(({ callId }) => callId)].slice(0, maxCalls);
  }

  async function connectOnce(): Promise<void> {
    const watch = createConnectionWatch(connection, silenceTimeoutMs);
    const definitions = tools.map(({ definition }) => definition);
    const request = { tools: definitions, concurrency, name, workerId, callIds: workerId === "" ? [] : callIds() };
    const opened = await watch(caller.stream(method.connect, request, connection.signal));
    const messages: AsyncIterator<ConnectResponse> = opened[Symbol.asyncIterator]();
    for (;;) {
      const next = await watch(messages.next());
      if (next.done === true) throw new CadreError("UNAVAILABLE", "the server ended the stream");
      const { message } = next.value;
      switch (message.case) {
        case "registered": {
          workerId = message.value.workerId;
          const interval = message.value.heartbeatInterval;
          if (interval !== undefined) heartbeatMs = Math.max(100, durationMs(interval));
          failures = 0;
          registered.resolve();
          break;
        }
        case "call":
          accept(message.value);
          break;
        case "cancel":
          cancel(message.value.callId);
          break;
        case "drain":
          throw new CadreError("SHUTTING_DOWN", "the server is going away");
        default:
          break;
      }
    }
  }

  let failures = 0;

  async function keepConnected(): Promise<void> {
    // A drained worker that connects again would be given calls again.
    while (state.kind === "serving" && !stop.signal.aborted) {
      connection = new AbortController();
      const onStop = () => connection.abort(stop.signal.reason);
      stop.signal.addEventListener("abort", onStop, { once: true });
      try {
        await connectOnce();
      } catch (thrown) {
        if (stop.signal.aborted) return;
        const error = toCadreError(thrown);
        if (error.reason === "WORKER_NOT_FOUND" && workerId !== "") loseRegistration(workerId);
        else if (!isPassing(error) && error.reason !== "CANCELLED") throw error;
        failures += 1;
        const policy = { initialDelayMs: 100, maxDelayMs: maxReconnectDelayMs };
        const delayMs = backoffMs(failures, policy, error.retryAfterMs);
        onBreak?.({ error, attempt: failures, delayMs });
        await delay(delayMs, stop.signal).catch(() => undefined);
      } finally {
        stop.signal.removeEventListener("abort", onStop);
        connection.abort();
      }
    }
  }

  /** How long to wait until the next heartbeat, in milliseconds (6.). */
  function pauseMs(): number {
    const held = [...waiting, ...[...active.values()].map(({ call }) => call)];
    const timeouts = held.flatMap(({ heartbeatTimeout }) =>
      heartbeatTimeout === undefined ? [] : [durationMs(heartbeatTimeout)],
    );
    return Math.max(100, Math.min(heartbeatMs, ...timeouts.map((timeoutMs) => timeoutMs / 4)));
  }

  async function keepAlive(): Promise<void> {
    // Where nothing was registered, `stop` has aborted by now.
    await registered.promise.catch(() => undefined);
    while (!stop.signal.aborted) {
      pause = new AbortController();
      await delay(pauseMs(), AbortSignal.any([stop.signal, pause.signal])).catch(() => undefined);
      if (stop.signal.aborted || workerId === "") continue;
      const usedId = workerId;
      try {
        const request = { workerId, callIds: callIds() };
        const { cancelledCallIds } = await caller.unary(method.heartbeat, request, {
          timeoutMs: 10_000,
          signal: stop.signal,
        });
        for (const callId of cancelledCallIds) cancel(callId);
      } catch (thrown) {
        const error = toCadreError(thrown);
        if (stop.signal.aborted) return;
        if (error.reason === "WORKER_NOT_FOUND") loseRegistration(usedId);
        else if (!isPassing(error)) onError(error, { kind: "connection" });
        // A passing failure shows in the connection, which reports it.
      }
    }
  }

  // --- life

  async function drain(): Promise<void> {
    if (workerId !== "") {
      await caller.unary(method.drain, { workerId }, { timeoutMs: 5_000 }).catch((thrown: unknown) => {
        // Not decisive: the server misses the heartbeats and hands the calls to others.
        const error = toCadreError(thrown);
        if (!isPassing(error)) onError(error, { kind: "connection" });
      });
    }
    if (!(await idleWithin(drainTimeoutMs))) {
      for (const { call } of active.values()) cancel(call.callId);
      for (const call of [...waiting]) cancel(call.callId);
      await idleWithin(abortGraceMs);
    }
    state = { kind: "closed" };
    stop.abort();
  }

  function idleWithin(timeoutMs: number): Promise<boolean> {
    if (running === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), timeoutMs);
      onIdle = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  }

  function close(): Promise<void> {
    if (state.kind === "serving") state = { kind: "closing", done: drain() };
    return state.kind === "closing" ? state.done.then(() => life) : life;
  }

  const life = Promise.all([keepConnected(), keepAlive()]).then(
    () => closed.resolve(),
    (thrown: unknown) => {
      state = { kind: "closed" };
      for (const { controller } of active.values()) controller.abort(new CallCancelled("the worker has ended"));
      stop.abort();
      registered.reject(thrown);
      closed.reject(thrown);
      onError(thrown, { kind: "connection" });
    },
  );
  // Whoever does not look at `closed` has been told by `onError`.
  closed.promise.catch(() => undefined);

  const onSignal = () => {
    void close();
    registered.reject(new CadreError("CANCELLED", "the worker was cancelled", { cause: signal?.reason }));
  };
  signal?.addEventListener("abort", onSignal, { once: true });
  if (signal?.aborted === true) onSignal();
  void life.finally(() => signal?.removeEventListener("abort", onSignal));

  const worker: ToolWorker = {
    get workerId() {
      return workerId;
    },
    closed: closed.promise,
    close,
    [Symbol.asyncDispose]: close,
  };
  return registered.promise.then(() => worker);
}

/**
 * How long a handler may take: what the definition says, or less where the
 * deadline is nearer. A deadline that has passed already shows that the two
 * clocks differ; the server keeps to its own.
 */
function timeLeftMs(call: WorkerCall, tool: DefinedTool): number {
  const leftMs = call.deadline === undefined ? 0 : timestampMs(call.deadline) - Date.now();
  return leftMs > 0 ? Math.min(leftMs, tool.timeoutMs) : tool.timeoutMs;
}

function success(result: JsonValue): Outcome {
  return { case: "result", value: fromJson(ValueSchema, result) };
}

function failure(reason: CadreErrorReason, message: string): Outcome {
  return { case: "error", value: { reason: reasonNumber(reason), message } };
}
