import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { StatusSchema } from "@cadre/gen/google/rpc/status_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { Metadata, type StatusObject, status as GrpcStatus } from "@grpc/grpc-js";
import { toBuffer } from "./method-definition.ts";
import { fromMetadata, toMetadata } from "./metadata.ts";

const detailsName = "grpc-status-details-bin";
const typePrefix = "type.googleapis.com/";

/**
 * Encodes an error as gRPC sends it: Connect's codes are gRPC's numbers, and
 * details go as `google.rpc.Status` in `grpc-status-details-bin`. The error's
 * metadata goes along as trailers.
 */
export function toStatus(error: ConnectError): StatusObject {
  // A lone surrogate cannot be percent-encoded, which is how gRPC sends texts.
  const details = error.rawMessage.toWellFormed();
  const metadata = toMetadata(error.metadata);
  if (error.details.length > 0) {
    const any = error.details.map((detail) =>
      "desc" in detail
        ? {
            typeUrl: typePrefix + detail.desc.typeName,
            value: toBinary(detail.desc, create(detail.desc, detail.value)),
          }
        : { typeUrl: typePrefix + detail.type, value: detail.value },
    );
    const status = create(StatusSchema, { code: error.code, message: details, details: any });
    metadata.set(detailsName, toBuffer(toBinary(StatusSchema, status)));
  }
  return { code: error.code as number, details, metadata };
}

/** The status of a call that went well. */
export function okStatus(trailer: Headers): StatusObject {
  return { code: GrpcStatus.OK, details: "", metadata: toMetadata(trailer) };
}

/**
 * Rebuilds the error that a peer answered, with its details and trailers. What
 * is no known code becomes `unknown`, as gRPC asks.
 */
export function fromStatus({ code, details, metadata }: StatusObject): ConnectError {
  const known = code >= Code.Canceled && code <= Code.Unauthenticated ? (code as number as Code) : Code.Unknown;
  const error = new ConnectError(details, known, fromMetadata(metadata ?? new Metadata()));
  const encoded = metadata?.get(detailsName)[0];
  if (encoded === undefined || typeof encoded === "string") return error;
  const status = parseStatus(encoded);
  if (status === undefined || status.code !== code) return error;
  const full = new ConnectError(status.message === "" ? details : status.message, known, error.metadata);
  full.details = status.details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return full;
}

/** Details help programs along; malformed ones do not hide the status that came with them. */
function parseStatus(bytes: Buffer) {
  try {
    return fromBinary(StatusSchema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch {
    return undefined;
  }
}
