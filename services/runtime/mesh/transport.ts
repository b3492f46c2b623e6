import { Code, ConnectError } from "@connectrpc/connect";
import { type Channel, type experimental, status as GrpcStatus, type Metadata, type StatusObject } from "@grpc/grpc-js";
import { abortFailure, deadlineExceeded, toCallFailure } from "../rpc/call-failure.ts";
import { CallHeader } from "../rpc/call-header.ts";
import { Inbox } from "../rpc/inbox.ts";
import type { StreamAnswer, UnaryAnswer } from "../rpc/invoke.ts";
import { bytesCodec } from "../rpc/message-codec.ts";
import type { OutgoingCall, Wire } from "../rpc/wire-transport.ts";
import { fromLateStatus, markLateFailures } from "./late-failure.ts";
import { fromMetadata, toMetadata } from "./metadata.ts";
import { methodDefinition, toBuffer } from "./method-definition.ts";
import { detailsName, fromStatus } from "./status.ts";

type Call = experimental.CallStream;

/**
 * Carries calls over a grpc-js channel. It drives the channel's calls itself,
 * without grpc-js's stream objects: a message is read when it is asked for, and
 * the next is written when the one before went out, so neither side ever holds
 * more than a few.
 */
export function createGrpcWire(channel: Channel): Wire<Uint8Array> {
  return {
    codec: bytesCodec,
    unary: (outgoing, request) => callUnary(channel, outgoing, request),
    stream: (outgoing, requests) => callStream(channel, outgoing, requests),
  };
}

function openCall(channel: Channel, { method, deadline }: OutgoingCall): Call {
  try {
    return channel.createCall(methodDefinition(method).path, deadline, undefined, null, undefined);
  } catch (cause) {
    throw new ConnectError("the mesh is closed", Code.Unavailable, undefined, undefined, cause);
  }
}

function cancel(call: Call, failure: ConnectError): void {
  const code = failure.code === Code.DeadlineExceeded ? GrpcStatus.DEADLINE_EXCEEDED : GrpcStatus.CANCELLED;
  call.cancelWithStatus(code, failure.rawMessage);
}

/** What a call ended with; `undefined` for OK. Of a deadline that has passed grpc-js tells in words of its own. */
function failureOf(status: StatusObject, { deadline }: OutgoingCall): ConnectError | undefined {
  const isOwn = status.code === GrpcStatus.DEADLINE_EXCEEDED && status.metadata.get(detailsName).length === 0;
  return isOwn && deadline <= Date.now() ? deadlineExceeded() : fromStatus(status);
}

function callUnary(channel: Channel, outgoing: OutgoingCall, request: Uint8Array): Promise<UnaryAnswer<Uint8Array>> {
  const { signal } = outgoing;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) throw abortFailure(signal.reason);
    const metadata = toMetadata(outgoing.header);
    const call = openCall(channel, outgoing);
    const onAbort = (): void => {
      const failure = abortFailure(signal?.reason);
      reject(failure);
      cancel(call, failure);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    let header: Metadata | undefined;
    let bytes: Buffer | undefined;
    call.start(metadata, {
      onReceiveMetadata(received) {
        header = received;
      },
      onReceiveMessage(received: Buffer) {
        if (bytes !== undefined) {
          call.cancelWithStatus(GrpcStatus.UNIMPLEMENTED, "the peer answered more than one message");
          return;
        }
        bytes = received;
        call.startRead();
      },
      onReceiveStatus(status) {
        signal?.removeEventListener("abort", onAbort);
        const failure = failureOf(status, outgoing);
        if (failure !== undefined) {
          reject(failure);
        } else if (bytes === undefined) {
          reject(new ConnectError("the peer answered no message", Code.Unimplemented));
        } else {
          resolve({
            header: header === undefined ? new CallHeader() : fromMetadata(header),
            trailer: fromMetadata(status.metadata),
            packed: bytes,
          });
        }
      },
    });
    call.sendMessageWithContext({}, toBuffer(request));
    call.halfClose();
    call.startRead();
  });
}

function callStream(
  channel: Channel,
  outgoing: OutgoingCall,
  requests: AsyncIterable<Uint8Array>,
): Promise<StreamAnswer<Uint8Array>> {
  const { signal } = outgoing;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) throw abortFailure(signal.reason);
    const metadata = toMetadata(outgoing.header);
    markLateFailures(metadata);
    const call = openCall(channel, outgoing);
    const trailer = new CallHeader();
    const iterator = requests[Symbol.asyncIterator]();
    const inbox = new Inbox<Uint8Array>(
      () => call.startRead(),
      () => cancel(call, new ConnectError("the reader left", Code.Canceled)),
    );
    let ended = false;
    const end = (failure: ConnectError | undefined): void => {
      if (ended) return;
      ended = true;
      signal?.removeEventListener("abort", onAbort);
      endRequests(iterator);
      if (failure === undefined) {
        inbox.end();
        return;
      }
      reject(failure);
      inbox.fail(failure);
    };
    const abort = (failure: ConnectError): void => {
      end(failure);
      cancel(call, failure);
    };
    const onAbort = (): void => abort(abortFailure(signal?.reason));
    signal?.addEventListener("abort", onAbort, { once: true });
    const answer = (header: Headers): void => resolve({ header, trailer, messages: inbox });
    call.start(metadata, {
      onReceiveMetadata: (received) => answer(fromMetadata(received)),
      onReceiveMessage: (bytes: Buffer) => inbox.deliver(bytes),
      onReceiveStatus(status) {
        const failure = fromLateStatus(status) ?? failureOf(status, outgoing);
        if (failure === undefined) {
          answer(new CallHeader());
          for (const [name, value] of fromMetadata(status.metadata)) trailer.append(name, value);
        }
        end(failure);
      },
    });
    inbox.open();
    sendRequests(call, iterator, () => ended).catch((thrown: unknown) => abort(toCallFailure(thrown, "")));
  });
}

/** Sends one message after the other, each when the one before was taken; then says that there are no more. */
async function sendRequests(call: Call, requests: AsyncIterator<Uint8Array>, ended: () => boolean): Promise<void> {
  for (;;) {
    const result = await requests.next();
    if (ended()) return;
    if (result.done === true) {
      call.halfClose();
      return;
    }
    // A call that has ended takes no more and calls back no more: what waits here then is collected with it.
    await new Promise<void>((resolve) => {
      call.sendMessageWithContext({ callback: () => resolve() }, toBuffer(result.value));
    });
    if (ended()) return;
  }
}

/** Tells the source of a call's requests that no more are wanted. Its own failure then concerns nobody. */
function endRequests(requests: AsyncIterator<Uint8Array>): void {
  requests.return?.().then(undefined, () => {});
}
