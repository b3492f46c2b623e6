import type { DescFile, DescService } from "@bufbuild/protobuf";
import { ServerReflection, type ServerReflectionRequest } from "@cadre/gen/grpc/reflection/v1/reflection_pb";
import {
  ServerReflection as ServerReflectionAlpha,
  type ServerReflectionRequest as ServerReflectionRequestAlpha,
} from "@cadre/gen/grpc/reflection/v1alpha/reflection_pb";
import { Code } from "@connectrpc/connect";
import { type Implementation, implement } from "../rpc/implementation.ts";
import { type DescriptorIndex, encodeWithImports, indexDescriptors } from "./descriptor-index.ts";

/**
 * Server reflection (`grpc.reflection.v1`, and `v1alpha` for older tools), so
 * that `buf curl` and `grpcurl` need no contract at hand. It shows the services
 * of the given implementations and what their files import, as they were
 * generated: with options, without comments.
 */
export function reflectionServices(implementations: readonly Implementation[]): Implementation[] {
  const services: DescService[] = implementations.map(({ service }) => service);
  const index = indexDescriptors([...services, ServerReflection, ServerReflectionAlpha]);
  return [
    implement(ServerReflection, {
      async *serverReflectionInfo(requests) {
        const sent = new Set<string>();
        for await (const request of requests) {
          yield { validHost: request.host, originalRequest: request, messageResponse: answer(index, request, sent) };
        }
      },
    }) as Implementation,
    implement(ServerReflectionAlpha, {
      async *serverReflectionInfo(requests) {
        const sent = new Set<string>();
        for await (const request of requests) {
          yield { validHost: request.host, originalRequest: request, messageResponse: answer(index, request, sent) };
        }
      },
    }) as Implementation,
  ];
}

/** An answer in the form of both versions, which differ in their package alone. */
type Answer =
  | { readonly case: "fileDescriptorResponse"; readonly value: { readonly fileDescriptorProto: Uint8Array[] } }
  | {
      readonly case: "allExtensionNumbersResponse";
      readonly value: { readonly baseTypeName: string; readonly extensionNumber: number[] };
    }
  | { readonly case: "listServicesResponse"; readonly value: { readonly service: { readonly name: string }[] } }
  | { readonly case: "errorResponse"; readonly value: { readonly errorCode: number; readonly errorMessage: string } };

/** The answer to one question. `sent` names the files that went out on the same stream already. */
function answer(
  index: DescriptorIndex,
  { messageRequest: question }: ServerReflectionRequest | ServerReflectionRequestAlpha,
  sent: Set<string>,
): Answer {
  switch (question.case) {
    case "listServices":
      return {
        case: "listServicesResponse",
        value: { service: index.services.map((name) => ({ name })) },
      };
    case "fileByFilename":
      return fileAnswer(index.fileByName(question.value), sent);
    case "fileContainingSymbol":
      return fileAnswer(index.fileOfSymbol(question.value), sent);
    case "fileContainingExtension":
      return fileAnswer(index.fileOfExtension(question.value.containingType, question.value.extensionNumber), sent);
    case "allExtensionNumbersOfType": {
      const extensionNumber = index.extensionNumbers(question.value);
      if (extensionNumber === undefined) return failure(Code.NotFound, "no such message");
      return {
        case: "allExtensionNumbersResponse",
        value: { baseTypeName: question.value, extensionNumber: [...extensionNumber] },
      };
    }
    case undefined:
      return failure(Code.InvalidArgument, "the request asks nothing");
  }
}

function fileAnswer(file: DescFile | undefined, sent: Set<string>): Answer {
  if (file === undefined) return failure(Code.NotFound, "no such file or symbol");
  // A file that is asked for by itself is sent again; what it imports is not.
  sent.delete(file.proto.name);
  return {
    case: "fileDescriptorResponse",
    value: { fileDescriptorProto: encodeWithImports(file, sent) },
  };
}

function failure(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
