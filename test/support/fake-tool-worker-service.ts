import { create, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  type ReportOutputRequest,
  type ReportResultRequest,
  type ToolWorkerService,
} from "@cadre/gen/cadre/tools/v1/tool_worker_pb";
import { ErrorInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";

type Message = NonNullable<MessageInitShape<typeof ConnectResponseSchema>["message"]>;

/** Hands calls to workers as the test says, and keeps what they report. */
export interface FakeToolWorkerService {
  readonly handlers: ServiceImpl<typeof ToolWorkerService>;
  readonly connections: readonly ConnectRequest[];
  readonly outputs: readonly ReportOutputRequest[];
  readonly results: readonly ReportResultRequest[];
  /** The calls named in the newest heartbeat. */
  readonly heartbeat: readonly string[];
  /** When heartbeats came, in monotonic milliseconds. */
  readonly heartbeatsAt: readonly number[];
  readonly drained: boolean;
  /** Whether a worker is connected now. */
  readonly connected: boolean;
  /** Hands out a call; the id is `call_` and the number in 26 digits. */
  call(number: number, tool: string, args?: JsonObject, idempotencyKey?: string, heartbeatTimeoutMs?: number): string;
  cancel(callId: string): void;
  /** Ends the open stream with an error. */
  breakConnection(error?: ConnectError): void;
  /** Named in the next heartbeat's answer. */
  cancelByHeartbeat(callId: string): void;
  /** Thrown by the next reports, one after the other. */
  failReports(...errors: readonly ConnectError[]): void;
  /** The registration is forgotten: the worker's id is unknown from now on. */
  forget(): void;
}

/** A failure with a reason of the contract, as a server answers it. */
export function failureOf(reason: string, code: Code): ConnectError {
  const error = new ConnectError(reason.toLowerCase(), code);
  error.details.push({ desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason, domain: "cadre.dev" }) });
  return error;
}

/** Creates the service. */
export function createFakeToolWorkerService(
  /** How often workers are told to send a heartbeat. */
  heartbeatIntervalMs = 100,
): FakeToolWorkerService {
  const connections: ConnectRequest[] = [];
  const outputs: ReportOutputRequest[] = [];
  const results: ReportResultRequest[] = [];
  const failures: ConnectError[] = [];
  const cancelled: string[] = [];
  let heartbeat: readonly string[] = [];
  const heartbeatsAt: number[] = [];
  let drained = false;
  let workers = 0;
  let known = "";
  let queue: Message[] = [];
  let wake = () => {};
  let current: { broken: ConnectError | undefined } | undefined;

  function push(message: Message): void {
    queue.push(message);
    wake();
  }

  function takeReport(workerId: string): void {
    const failure = failures.shift();
    if (failure !== undefined) throw failure;
    if (workerId !== known) throw failureOf("WORKER_NOT_FOUND", Code.NotFound);
  }

  return {
    connections,
    outputs,
    results,
    get heartbeat() {
      return heartbeat;
    },
    heartbeatsAt,
    get drained() {
      return drained;
    },
    get connected() {
      return current !== undefined;
    },
    call(number, tool, args = {}, idempotencyKey = `key-${number}`, heartbeatTimeoutMs) {
      const callId = `call_${String(number).padStart(26, "0")}`;
      const timed = heartbeatTimeoutMs === undefined ? {} : { heartbeatTimeout: durationFromMs(heartbeatTimeoutMs) };
      push({ case: "call", value: { callId, tool, arguments: args, idempotencyKey, attempt: 1, ...timed } });
      return callId;
    },
    cancel: (callId) => push({ case: "cancel", value: { callId } }),
    breakConnection(error = new ConnectError("reset", Code.Unavailable)) {
      if (current !== undefined) current.broken = error;
      wake();
    },
    cancelByHeartbeat: (callId) => void cancelled.push(callId),
    failReports: (...next) => void failures.push(...next),
    forget() {
      known = "";
    },
    handlers: {
      async *connect(request, context): AsyncGenerator<ConnectResponse> {
        if (request.workerId !== "" && request.workerId !== known) throw failureOf("WORKER_NOT_FOUND", Code.NotFound);
        connections.push(request);
        if (request.workerId === "") {
          workers += 1;
          known = `wrk_${String(workers).padStart(26, "0")}`;
          queue = [];
        }
        const connection: { broken: ConnectError | undefined } = { broken: undefined };
        current = connection;
        context.signal.addEventListener("abort", () => {
          if (current === connection) current = undefined;
          wake();
        });
        const registered = { workerId: known, heartbeatInterval: durationFromMs(heartbeatIntervalMs), digests: [] };
        yield create(ConnectResponseSchema, { message: { case: "registered", value: registered } });
        while (!context.signal.aborted) {
          const { broken } = connection;
          if (broken !== undefined) {
            if (current === connection) current = undefined;
            throw broken;
          }
          const message = queue.shift();
          if (message !== undefined) yield create(ConnectResponseSchema, { message });
          else await new Promise<void>((resolve) => (wake = resolve));
        }
      },
      reportOutput(request) {
        takeReport(request.workerId);
        outputs.push(request);
        return {};
      },
      reportResult(request) {
        takeReport(request.workerId);
        results.push(request);
        return {};
      },
      heartbeat(request) {
        if (request.workerId !== known) throw failureOf("WORKER_NOT_FOUND", Code.NotFound);
        heartbeat = request.callIds;
        heartbeatsAt.push(performance.now());
        return { cancelledCallIds: cancelled.splice(0) };
      },
      drain() {
        drained = true;
        return {};
      },
    },
  };
}
