import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Status, StatusSchema } from "@cadre/gen/google/rpc/status_pb";
import { Code, ConnectError } from "@connectrpc/connect";
import { status as GrpcStatus, type Metadata, type StatusObject } from "@grpc/grpc-js";
import { fromMetadata, toMetadata } from "./metadata.ts";
import { toBuffer } from "./method-definition.ts";

/** The trailer of a failure's details. */
export const detailsName = "grpc-status-details-bin";
const typePrefix = "type.googleapis.com/";

/**
 * Encodes an error as gRPC sends it: Connect's codes are gRPC's numbers, and
 * details go as `google.rpc.Status` in `grpc-status-details-bin`. The error's
 * metadata goes along as trailers.
 *
 * @throws AppError INVALID_METADATA if the metadata cannot be sent
 */
export function toStatus(error: ConnectError): StatusObject {
  const metadata = toMetadata(error.metadata);
  const status = toGoogleStatus(error);
  if (error.details.length > 0) metadata.set(detailsName, toBuffer(toBinary(StatusSchema, status)));
  return { code: error.code as number, details: status.message, metadata };
}

/**
 * Rebuilds the error that a peer answered, with its details and trailers;
 * `undefined` for OK. An unknown code becomes `unknown`, as gRPC asks.
 */
export function fromStatus({ code, details, metadata }: StatusObject): ConnectError | undefined {
  if (code === GrpcStatus.OK) return undefined;
  const encoded = metadata.get(detailsName)[0];
  const status = encoded === undefined || typeof encoded === "string" ? undefined : parseStatus(encoded);
  if (status === undefined || (status.code as number) !== code) {
    return new ConnectError(details, knownCode(code), fromMetadata(metadata));
  }
  return fromGoogleStatus(status, metadata);
}

/** An error as `google.rpc.Status`. */
export function toGoogleStatus(error: ConnectError): Status {
  return create(StatusSchema, {
    code: error.code,
    // A lone surrogate cannot be percent-encoded, which is how gRPC sends texts.
    message: error.rawMessage.toWellFormed(),
    details: error.details.map((detail) =>
      "desc" in detail
        ? {
            typeUrl: typePrefix + detail.desc.typeName,
            value: toBinary(detail.desc, create(detail.desc, detail.value)),
          }
        : { typeUrl: typePrefix + detail.type, value: detail.value },
    ),
  });
}

/** The error of a `google.rpc.Status` that came with metadata. */
export function fromGoogleStatus(status: Status, metadata: Metadata): ConnectError {
  const error = new ConnectError(status.message, knownCode(status.code), fromMetadata(metadata));
  error.details = status.details.map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return error;
}

function knownCode(code: number): Code {
  return code >= Code.Canceled && code <= Code.Unauthenticated ? code : Code.Unknown;
}

/** Details help programs along; malformed ones do not hide the status that came with them. */
function parseStatus(bytes: Buffer): Status | undefined {
  try {
    return fromBinary(StatusSchema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch {
    return undefined;
  }
}
