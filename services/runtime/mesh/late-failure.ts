import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Status, StatusSchema } from "@cadre/gen/google/rpc/status_pb";
import type { ConnectError } from "@connectrpc/connect";
import { status as GrpcStatus, type Metadata, type StatusObject } from "@grpc/grpc-js";
import { toMetadata } from "./metadata.ts";
import { toBuffer } from "./method-definition.ts";
import { fromGoogleStatus, toGoogleStatus } from "./status.ts";

// grpc-js's client throws away the messages that its reader has not asked for
// yet when a status comes that is not OK. A stream that fails after a thousand
// events would lose its last ones for a reader that is a little behind. So
// between our own two ends the failure of a stream that has sent something
// travels in the trailers of an OK status, which waits for the reader. A caller
// asks for it by a header; any other gets the plain status.

const askName = "cadre-late-failure";
const failureName = "cadre-failure-bin";

/** Asks the server to send the failure of a stream behind its messages. */
export function markLateFailures(metadata: Metadata): void {
  metadata.set(askName, "1");
}

/** Whether the caller asked for it; takes the mark away, which is no business of handlers. */
export function takeLateFailureMark(metadata: Metadata): boolean {
  const marked = metadata.get(askName).length > 0;
  if (marked) metadata.remove(askName);
  return marked;
}

/** The status that carries a failure behind the messages. */
export function toLateStatus(failure: ConnectError): StatusObject {
  const metadata = toMetadata(failure.metadata);
  metadata.set(failureName, toBuffer(toBinary(StatusSchema, toGoogleStatus(failure))));
  return { code: GrpcStatus.OK, details: "", metadata };
}

/** The failure that a status carries behind the messages, if any. */
export function fromLateStatus({ code, metadata }: StatusObject): ConnectError | undefined {
  const encoded = metadata.get(failureName)[0];
  if (code !== GrpcStatus.OK || encoded === undefined || typeof encoded === "string") return undefined;
  metadata.remove(failureName);
  const status: Status = fromBinary(StatusSchema, new Uint8Array(encoded));
  return fromGoogleStatus(status, metadata);
}
