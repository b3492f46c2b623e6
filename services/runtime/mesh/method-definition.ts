import type { DescMethod } from "@bufbuild/protobuf";
import type { MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";
import { methodPath } from "../rpc/invoke.ts";

/** A method as grpc-js knows it: bytes in, bytes out. The codec is ours, above it. */
export type BytesMethod = MethodDefinition<Buffer, Buffer>;

const definitions = new WeakMap<DescMethod, BytesMethod>();

/** The grpc-js definition of a method; made once a method. */
export function methodDefinition(method: DescMethod): BytesMethod {
  let definition = definitions.get(method);
  if (definition === undefined) {
    const { methodKind } = method;
    definition = {
      path: methodPath(method),
      requestStream: methodKind === "client_streaming" || methodKind === "bidi_streaming",
      responseStream: methodKind === "server_streaming" || methodKind === "bidi_streaming",
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
      originalName: method.localName,
    };
    definitions.set(method, definition);
  }
  return definition;
}

/** The grpc-js definition of a service's methods, by their local names. */
export function serviceDefinition(methods: readonly DescMethod[]): ServiceDefinition {
  return Object.fromEntries(methods.map((method) => [method.localName, methodDefinition(method)]));
}

/** The bytes of a message as grpc-js takes them, without a copy. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function same(bytes: Buffer): Buffer {
  return bytes;
}
