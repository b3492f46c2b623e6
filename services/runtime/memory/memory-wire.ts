import { Code, ConnectError } from "@connectrpc/connect";
import { abortFailure, toCallFailure } from "../rpc/call-failure.ts";
import { CallHeader } from "../rpc/call-header.ts";
import { Inbox } from "../rpc/inbox.ts";
import {
  methodPath,
  type ServedMethod,
  type ServedStream,
  type ServedUnary,
  type StreamAnswer,
  type UnaryAnswer,
} from "../rpc/invoke.ts";
import type { OutgoingCall, Wire } from "../rpc/wire-transport.ts";
import { MemoryCall } from "./memory-call.ts";
import { type Handed, memoryCodec } from "./memory-codec.ts";
import type { MemoryPeer } from "./memory-peer.ts";

/**
 * Carries calls to a peer within the process. As over a network, nothing but
 * copies of messages, headers and the codes and details of errors crosses; deadline and
 * cancellation end the caller's side at once, whatever the handler does.
 *
 * @param name the peer's name, for messages
 * @param find the peer, if it serves now
 */
export function createMemoryWire(name: string, find: () => MemoryPeer | undefined): Wire<Handed> {
  const reach = (call: OutgoingCall): { readonly peer: MemoryPeer; readonly served: ServedMethod<Handed> } => {
    if (call.signal?.aborted === true) throw abortFailure(call.signal.reason);
    const peer = find();
    if (peer === undefined) throw new ConnectError(`${name} does not serve`, Code.Unavailable);
    const path = methodPath(call.method);
    const served = peer.methods.get(path);
    if (served === undefined) throw new ConnectError(`${name} has no method ${path}`, Code.Unimplemented);
    return { peer, served };
  };
  return {
    codec: memoryCodec,
    async unary(call, request) {
      const { peer, served } = reach(call);
      if (served.kind !== "unary")
        throw new ConnectError(`${methodPath(served.method)} is a stream`, Code.Unimplemented);
      return callUnary(peer, served, call, request);
    },
    async stream(call, requests) {
      const { peer, served } = reach(call);
      if (served.kind !== "stream") throw new ConnectError(`${methodPath(served.method)} is unary`, Code.Unimplemented);
      return callStream(peer, served, call, requests);
    },
  };
}

function callUnary(
  peer: MemoryPeer,
  served: ServedUnary<Handed>,
  outgoing: OutgoingCall,
  request: Handed,
): Promise<UnaryAnswer<Handed>> {
  return new Promise((resolve, reject) => {
    const call = new MemoryCall(peer, outgoing, reject);
    served.answer(call.incoming, request).then(
      ({ header, trailer, packed }) => {
        if (call.complete())
          resolve({ header: CallHeader.crossed(header), trailer: CallHeader.crossed(trailer), packed });
      },
      (thrown: unknown) => call.answerFailure(thrown),
    );
  });
}

function callStream(
  peer: MemoryPeer,
  served: ServedStream<Handed>,
  outgoing: OutgoingCall,
  requests: AsyncIterable<Handed>,
): Promise<StreamAnswer<Handed>> {
  return new Promise((resolve, reject) => {
    const call = new MemoryCall(peer, outgoing, (failure) => {
      reject(failure);
      toCaller.fail(failure);
    });

    const sent = requests[Symbol.asyncIterator]();
    const toHandler = new Inbox<Handed>(
      () => {
        sent.next().then(
          (result) => (result.done === true ? toHandler.end() : toHandler.deliver(result.value)),
          (thrown: unknown) => call.cut(toCallFailure(thrown, "")),
        );
      },
      () => {},
    );
    call.onEnd((failure) => {
      toHandler.fail(failure);
      release(sent);
    });

    const toCaller = new Inbox<Handed>(
      () => readAnswer(),
      () => call.cut(new ConnectError("the reader left", Code.Canceled)),
    );
    let readAnswer: () => void = () => {};
    toHandler.open();
    served.answer(call.incoming, toHandler).then(
      (answer) => {
        const answers = answer.messages[Symbol.asyncIterator]();
        call.onEnd(() => release(answers));
        const trailer = new CallHeader();
        let headerSent = false;
        readAnswer = () => {
          answers.next().then(
            (result) => {
              // As on a network, headers go out with the first message: a handler may set them until then.
              if (!headerSent) resolve({ header: CallHeader.crossed(answer.header), trailer, messages: toCaller });
              headerSent = true;
              if (result.done !== true) {
                toCaller.deliver(result.value);
              } else if (call.complete()) {
                for (const [name, value] of CallHeader.crossed(answer.trailer)) trailer.append(name, value);
                toCaller.end();
              }
            },
            (thrown: unknown) => call.answerFailure(thrown),
          );
        };
        toCaller.open();
      },
      (thrown: unknown) => call.answerFailure(thrown),
    );
  });
}

/** Tells a source that no more is wanted. The call is over: its failure then concerns nobody. */
function release(source: AsyncIterator<Handed>): void {
  source.return?.().then(undefined, () => {});
}
