import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import { readToldRequest } from "../identity/told-request.ts";
import { abortFailure, deadlineExceeded, toCallFailure } from "../rpc/call-failure.ts";
import { CallHeader } from "../rpc/call-header.ts";
import { createDeadlineTimer, type Expiring } from "../rpc/deadline-timer.ts";
import { arrivedDeadlineKey, type IncomingCall } from "../rpc/invoke.ts";
import type { Seat } from "../rpc/roster.ts";
import type { OutgoingCall } from "../rpc/wire-transport.ts";
import type { MemoryPeer } from "./memory-peer.ts";

const deadlines = createDeadlineTimer();

/** What a reader of requests is told that goes on after its call was answered. */
const completed = new ConnectError("the call has ended", Code.Canceled);

/**
 * A call between two services of one process, from its arrival to its end.
 *
 * 1. It ends once: completed, failed by the handler, or cut by deadline, caller
 *    or shutdown. The caller hears of it at once.
 * 2. When it is cut, the handler's signal aborts.
 */
export class MemoryCall implements Expiring {
  readonly incoming: IncomingCall;
  readonly #peer: MemoryPeer;
  readonly #caller: AbortSignal | undefined;
  readonly #reject: (failure: ConnectError) => void;
  readonly #controller = new AbortController();
  readonly #running: Seat;
  readonly #waiting: Seat | undefined;
  readonly #onAbort: (() => void) | undefined;
  #endings: ((failure: ConnectError) => void)[] | undefined;
  #ended = false;

  constructor(peer: MemoryPeer, outgoing: OutgoingCall, reject: (failure: ConnectError) => void) {
    const { signal, deadline } = outgoing;
    this.#peer = peer;
    this.#caller = signal;
    this.#reject = reject;
    if (signal !== undefined) {
      this.#onAbort = () => this.cut(abortFailure(signal.reason));
      signal.addEventListener("abort", this.#onAbort, { once: true });
    }
    const contextValues = createContextValues();
    if (deadline !== Number.POSITIVE_INFINITY) {
      contextValues.set(arrivedDeadlineKey, deadline);
      this.#waiting = deadlines.set(deadline, this);
    }
    this.incoming = { header: CallHeader.crossed(outgoing.header), signal: this.#controller.signal, contextValues };
    this.#running = peer.running.join(this);
  }

  /** Calls back when the call ends; at once if it has. */
  onEnd(ending: (failure: ConnectError) => void): void {
    if (this.#ended) ending(completed);
    else if (this.#endings === undefined) this.#endings = [ending];
    else this.#endings.push(ending);
  }

  /** The handler has answered in full. Returns false if the call had ended before. */
  complete(): boolean {
    return this.#end(completed);
  }

  /** The handler, or what is around it, failed. */
  answerFailure(thrown: unknown): void {
    if (this.#ended) return;
    const { requestId } = readToldRequest(this.incoming.header);
    const failure = crossedFailure(toCallFailure(thrown, requestId));
    if (this.#end(failure)) this.#reject(failure);
  }

  /** Ends the call from outside the handler. */
  cut(failure: ConnectError): void {
    if (!this.#end(failure)) return;
    this.#controller.abort(failure);
    this.#reject(failure);
  }

  expire(): void {
    this.cut(deadlineExceeded());
  }

  #end(failure: ConnectError): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#waiting?.leave();
    if (this.#onAbort !== undefined) this.#caller?.removeEventListener("abort", this.#onAbort);
    if (this.#endings !== undefined) for (const ending of this.#endings) ending(failure);
    this.#running.leave();
    this.#peer.onCallEnd();
    return true;
  }
}

/** An error as it arrives on the other side: its details encoded, nothing of the process it came from. */
function crossedFailure(error: ConnectError): ConnectError {
  const crossed = new ConnectError(error.rawMessage, error.code, CallHeader.crossed(error.metadata));
  crossed.details = error.details.map((detail) =>
    "desc" in detail
      ? { type: detail.desc.typeName, value: toBinary(detail.desc, create(detail.desc, detail.value)) }
      : { type: detail.type, value: detail.value },
  );
  return crossed;
}
