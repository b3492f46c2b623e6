import { fromJson, type JsonObject, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { durationMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Reason } from "@cadre/gen/cadre/errors/v1/reason_pb";
import type { ToolDefinitionSchema } from "@cadre/gen/cadre/tools/v1/tool_pb";
import type {
  ReportResultRequestSchema,
  ToolWorkerService,
  WorkerCall,
} from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { fromConnectError } from "../../services/runtime/errors/failure.ts";

/** What a handler of a test is given. */
export interface TestCall {
  readonly call: WorkerCall;
  readonly signal: AbortSignal;
  /** Reports text; resolves when it was taken. */
  print(text: string): Promise<void>;
}

export interface TestWorkerOptions {
  /** For the stream. */
  readonly client: Client<typeof ToolWorkerService>;
  /** For reports and heartbeats; the same unless said. */
  readonly reports?: Client<typeof ToolWorkerService>;
  readonly tools: readonly MessageInitShape<typeof ToolDefinitionSchema>[];
  readonly concurrency?: number;
  readonly name?: string;
  readonly handle: (input: JsonObject, call: TestCall) => Promise<JsonValue> | JsonValue;
  /** Default: as the server asks. */
  readonly heartbeats?: boolean;
}

/** A worker that speaks the protocol to the letter, and shows what happened. */
export interface TestWorker {
  readonly workerId: string;
  readonly digests: readonly string[];
  /** Calls received so far, repetitions of one that is known included. */
  readonly received: readonly WorkerCall[];
  /** Ids of calls that it was told to cancel. */
  readonly cancelled: readonly string[];
  /** Handlers that run now. */
  readonly running: number;
  /** The most that ever ran at once. */
  readonly mostRunning: number;
  /** Reasons with which reports were refused. */
  readonly refused: readonly string[];
  /** Why the stream ended, once it did. */
  readonly ended: Promise<unknown>;
  /** Cuts the stream, then connects again as the same worker. */
  reconnect(client?: Client<typeof ToolWorkerService>): Promise<void>;
  drain(): Promise<void>;
  /** Cuts the stream and says nothing more. */
  vanish(): void;
}

/** Connects a worker; resolves when it is registered. */
export async function startTestWorker(options: TestWorkerOptions): Promise<TestWorker> {
  const reports = options.reports ?? options.client;
  const received: WorkerCall[] = [];
  const cancelled: string[] = [];
  const refused: string[] = [];
  const running = new Map<string, AbortController>();
  const known = new Set<string>();
  let mostRunning = 0;
  let workerId = "";
  let digests: readonly string[] = [];
  let stream = new AbortController();
  let heartbeatTimer: NodeJS.Timeout | undefined;
  let isGone = false;

  function stop(callId: string): void {
    cancelled.push(callId);
    running.get(callId)?.abort();
  }

  function noteRefusal(error: unknown): void {
    const failure = error instanceof ConnectError ? fromConnectError(error) : undefined;
    if (!isGone) refused.push(failure?.reason ?? String(error));
  }

  async function handle(call: WorkerCall): Promise<void> {
    received.push(call);
    if (known.has(call.callId)) return;
    known.add(call.callId);
    const { callId } = call;
    const controller = new AbortController();
    running.set(callId, controller);
    mostRunning = Math.max(mostRunning, running.size);
    let seq = 0n;
    const print = async (text: string): Promise<void> => {
      seq += 1n;
      const answer = await reports.reportOutput({ workerId, callId, seq, output: text });
      if (answer.cancelled) stop(callId);
    };
    let outcome: MessageInitShape<typeof ReportResultRequestSchema>["outcome"];
    try {
      const result = await options.handle(call.arguments ?? {}, { call, signal: controller.signal, print });
      outcome = { case: "result", value: fromJson(ValueSchema, result) };
    } catch (error) {
      outcome = controller.signal.aborted
        ? { case: "cancelled", value: {} }
        : { case: "error", value: { reason: Reason.TOOL_FAILED, message: String(error) } };
    }
    if (isGone) return;
    running.delete(callId);
    try {
      await reports.reportResult({ workerId, callId, outcome });
    } catch (error) {
      noteRefusal(error);
    }
  }

  async function heartbeat(): Promise<void> {
    try {
      const { cancelledCallIds } = await reports.heartbeat({ workerId, callIds: [...running.keys()] });
      for (const callId of cancelledCallIds) stop(callId);
    } catch (error) {
      noteRefusal(error);
    }
  }

  /** Opens a stream; resolves when it is registered, with a promise of its end. */
  async function open(client: Client<typeof ToolWorkerService>): Promise<{ readonly ended: Promise<unknown> }> {
    stream = new AbortController();
    const registered = Promise.withResolvers<void>();
    const { signal } = stream;
    const ended = (async () => {
      const { tools, concurrency = 1, name = "test" } = options;
      const request = { tools: [...tools], concurrency, name, workerId, callIds: [...running.keys()] };
      for await (const { message } of client.connect(request, { signal })) {
        if (message.case === "registered") {
          workerId = message.value.workerId;
          digests = message.value.digests;
          if (options.heartbeats !== false && message.value.heartbeatInterval !== undefined) {
            clearInterval(heartbeatTimer);
            heartbeatTimer = setInterval(() => void heartbeat(), durationMs(message.value.heartbeatInterval));
          }
          registered.resolve();
        } else if (message.case === "call") void handle(message.value);
        else if (message.case === "cancel") stop(message.value.callId);
      }
      return "ended";
    })().catch((error: unknown) => {
      registered.reject(error);
      const isOurs = error instanceof ConnectError && error.code === Code.Canceled;
      return isOurs ? "cut" : ((error instanceof ConnectError ? fromConnectError(error)?.reason : undefined) ?? error);
    });
    await registered.promise;
    return { ended };
  }

  let { ended } = await open(options.client);
  return {
    get workerId() {
      return workerId;
    },
    get digests() {
      return digests;
    },
    received,
    cancelled,
    refused,
    get running() {
      return running.size;
    },
    get mostRunning() {
      return mostRunning;
    },
    get ended() {
      return ended;
    },
    async reconnect(client = options.client) {
      stream.abort();
      await ended;
      ({ ended } = await open(client));
    },
    async drain() {
      await reports.drain({ workerId });
    },
    vanish() {
      isGone = true;
      clearInterval(heartbeatTimer);
      stream.abort();
    },
  };
}
