import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import {
  status as GrpcStatus,
  type Metadata,
  type ServerInterceptingCallInterface,
  type StatusObject,
} from "@grpc/grpc-js";
import { toAppError, toConnectError } from "../errors/failure.ts";
import { readToldRequest } from "../identity/told-request.ts";
import type { Logger } from "../log/log.ts";
import { deadlineExceeded } from "../rpc/call-failure.ts";
import { CallHeader } from "../rpc/call-header.ts";
import { Inbox } from "../rpc/inbox.ts";
import {
  arrivedDeadlineKey,
  type IncomingCall,
  methodPath,
  type ServedMethod,
  type ServedStream,
  type ServedUnary,
  type StreamAnswer,
} from "../rpc/invoke.ts";
import type { Roster, Seat } from "../rpc/roster.ts";
import { takeLateFailureMark, toLateStatus } from "./late-failure.ts";
import { fromMetadata, toMetadata } from "./metadata.ts";
import { toBuffer } from "./method-definition.ts";
import { peerIdentityKey } from "./peer-identity.ts";
import { toStatus } from "./status.ts";

/** What the server knows of a call besides its bytes. */
export interface ServerCallOptions {
  /** The caller's service, if its certificate proves one. */
  readonly peerIdentity: string | undefined;
  /** The server's calls that are not answered yet. */
  readonly running: Roster<RunningCall>;
  readonly log: Logger;
}

/** A call that is not answered yet, as the server that stops sees it. */
export interface RunningCall {
  /** Answers with a failure in place of the handler. */
  cut(failure: ConnectError): void;
}

/** How much of a stream's answer may wait for a slow reader before the handler is held up, in bytes. */
const maxUnsentBytes = 64 * 1024;

/** What a reader of requests is told that goes on after its call was answered. */
const completed = new ConnectError("the call has ended", Code.Canceled);

/**
 * Answers one call of a grpc-js server.
 *
 * 1. It answers once: with messages and a status, or with a status alone.
 * 2. When the call ends, however it does, its requests end and its answers are
 *    told to end (`return`); unless it was answered, the handler's signal aborts.
 * 3. It reads and writes by itself, without grpc-js's stream objects, and holds
 *    at most 64 KiB and one message in each direction.
 */
export function answerCall(
  call: ServerInterceptingCallInterface,
  served: ServedMethod<Uint8Array>,
  options: ServerCallOptions,
): void {
  if (served.kind === "unary") answerUnary(new OpenCall(call, served, options), served);
  else answerStream(new OpenCall(call, served, options), served);
}

function answerUnary(open: OpenCall, served: ServedUnary<Uint8Array>): void {
  const { call } = open;
  let incoming: IncomingCall | undefined;
  call.start({
    onReceiveMetadata(metadata) {
      incoming = open.arrive(metadata);
      // The only read: nothing after the message matters.
      call.startRead();
    },
    onReceiveMessage(bytes: Buffer) {
      if (incoming === undefined) return;
      served
        .answer(incoming, bytes)
        .then(({ header, trailer, packed: answer }) => {
          const status = answerStatus(trailer);
          const metadata = answerMetadata(header);
          if (open.ended) return;
          call.sendMetadata(metadata);
          call.sendMessage(toBuffer(answer), () => {});
          open.finish(status);
        })
        .catch((thrown: unknown) => open.fail(thrown));
    },
    onReceiveHalfClose: () => open.fail(new ConnectError("the request has no message", Code.Unimplemented)),
    onCancel: () => open.leave(),
  });
}

function answerStream(open: OpenCall, served: ServedStream<Uint8Array>): void {
  const { call } = open;
  const inbox = new Inbox<Uint8Array>(
    () => call.startRead(),
    () => {},
  );
  open.onEnd((failure) => inbox.fail(failure));
  call.start({
    onReceiveMetadata(metadata) {
      const incoming = open.arrive(metadata);
      inbox.open();
      served
        .answer(incoming, inbox)
        .then((answer) => sendAnswers(open, answer))
        .catch((thrown: unknown) => open.fail(thrown));
    },
    onReceiveMessage: (bytes: Buffer) => inbox.deliver(bytes),
    onReceiveHalfClose: () => inbox.end(),
    onCancel: () => open.leave(),
  });
}

async function sendAnswers(open: OpenCall, { header, trailer, messages }: StreamAnswer<Uint8Array>): Promise<void> {
  const { call } = open;
  const iterator = messages[Symbol.asyncIterator]();
  let unsentBytes = 0;
  let wake: (() => void) | undefined;
  let exhausted = false;
  open.onEnd(() => {
    wake?.();
    // A source that is still producing hears of the end by its signal.
    if (!exhausted) iterator.return?.().then(undefined, (cause: unknown) => open.warn(cause));
  });
  const sendHeader = (): void => {
    if (open.headerSent) return;
    call.sendMetadata(answerMetadata(header));
    open.headerSent = true;
  };
  while (!open.ended) {
    let result: IteratorResult<Uint8Array>;
    try {
      result = await iterator.next();
    } catch (thrown) {
      exhausted = true;
      throw thrown;
    }
    if (open.ended) return;
    if (result.done === true) {
      exhausted = true;
      const status = answerStatus(trailer);
      sendHeader();
      open.finish(status);
      return;
    }
    sendHeader();
    const { byteLength } = result.value;
    unsentBytes += byteLength;
    call.sendMessage(toBuffer(result.value), () => {
      unsentBytes -= byteLength;
      if (unsentBytes < maxUnsentBytes) wake?.();
    });
    if (unsentBytes >= maxUnsentBytes && !open.ended) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    }
  }
}

function answerMetadata(header: Headers): Metadata {
  try {
    return toMetadata(header);
  } catch (cause) {
    throw unsendable(cause);
  }
}

function answerStatus(trailer: Headers): StatusObject {
  return { code: GrpcStatus.OK, details: "", metadata: answerMetadata(trailer) };
}

/** A header that cannot be sent is the handler's fault, not the caller's. */
function unsendable(cause: unknown): TypeError {
  return new TypeError("the answer has metadata that cannot be sent", { cause });
}

/** A call from its arrival to its end. */
class OpenCall implements RunningCall {
  readonly call: ServerInterceptingCallInterface;
  readonly #method: ServedMethod<Uint8Array>["method"];
  readonly #options: ServerCallOptions;
  readonly #controller = new AbortController();
  readonly #endings: ((failure: ConnectError) => void)[] = [];
  #running: Seat | undefined;
  #header = new CallHeader();
  #readsLateFailures = false;
  /** Whether an answer was sent already. */
  headerSent = false;
  #ended = false;

  constructor(call: ServerInterceptingCallInterface, served: ServedMethod<Uint8Array>, options: ServerCallOptions) {
    this.call = call;
    this.#method = served.method;
    this.#options = options;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Calls back when the call ends; at once if it has. */
  onEnd(ending: (failure: ConnectError) => void): void {
    if (this.#ended) ending(completed);
    else this.#endings.push(ending);
  }

  /** The call is heard of only if its caller did not leave before. */
  arrive(metadata: Metadata): IncomingCall {
    this.#running = this.#options.running.join(this);
    this.#readsLateFailures = takeLateFailureMark(metadata);
    const header = fromMetadata(metadata);
    this.#header = header;
    const contextValues = createContextValues();
    const deadline = Number(this.call.getDeadline());
    if (deadline !== Number.POSITIVE_INFINITY) contextValues.set(arrivedDeadlineKey, deadline);
    if (this.#options.peerIdentity !== undefined) contextValues.set(peerIdentityKey, this.#options.peerIdentity);
    return { header, signal: this.#controller.signal, contextValues };
  }

  finish(status: StatusObject): void {
    if (this.#ended) return;
    this.call.sendStatus(status);
    this.#end(completed);
  }

  fail(thrown: unknown): void {
    if (!this.#ended) this.finish(this.#statusOf(thrown));
  }

  /** The caller left, or its deadline passed and was answered by grpc-js. */
  leave(): void {
    if (this.#ended) return;
    const late = Number(this.call.getDeadline()) <= Date.now();
    const failure = late ? deadlineExceeded() : new ConnectError("the caller left", Code.Canceled);
    this.#end(failure);
    this.#controller.abort(failure);
  }

  cut(failure: ConnectError): void {
    if (this.#ended) return;
    this.finish(this.#encode(failure));
    this.#controller.abort(failure);
  }

  warn(cause: unknown): void {
    this.#options.log.warn({ err: cause, rpc: methodPath(this.#method) }, "a stream failed after its call had ended");
  }

  #end(failure: ConnectError): void {
    this.#ended = true;
    this.#running?.leave();
    for (const ending of this.#endings) ending(failure);
    this.#endings.length = 0;
  }

  /** What the interceptors let through: failures of the codec beneath them, and bugs. */
  #statusOf(thrown: unknown): StatusObject {
    const { requestId } = readToldRequest(this.#header);
    let failure = thrown;
    if (failure instanceof ConnectError) {
      try {
        return this.#encode(failure);
      } catch (cause) {
        failure = unsendable(cause);
      }
    }
    const refusal = toAppError(failure);
    const fields = { rpc: methodPath(this.#method), request_id: requestId };
    const { log } = this.#options;
    if (refusal.reason === "INTERNAL") log.error({ err: refusal.cause ?? refusal, ...fields }, "internal error");
    else log.info({ reason: refusal.reason, ...fields }, "call refused");
    return this.#encode(toConnectError(refusal, requestId));
  }

  #encode(failure: ConnectError): StatusObject {
    return this.headerSent && this.#readsLateFailures ? toLateStatus(failure) : toStatus(failure);
  }
}
