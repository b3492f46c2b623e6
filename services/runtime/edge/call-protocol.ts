import type { DescMethod } from "@bufbuild/protobuf";

/** How a call is framed and encoded, as its content type says. */
export interface CallProtocol {
  readonly name: "connect" | "grpc" | "grpc-web";
  /** Messages come in envelopes; else the body is the one message. */
  readonly enveloped: boolean;
  readonly json: boolean;
  /** Where the encoding of messages is said. */
  readonly encodingField: "content-encoding" | "connect-content-encoding" | "grpc-encoding";
  readonly acceptField: "accept-encoding" | "connect-accept-encoding" | "grpc-accept-encoding";
  readonly timeoutField: "connect-timeout-ms" | "grpc-timeout";
}

const connectUnary: Omit<CallProtocol, "json"> = {
  name: "connect",
  enveloped: false,
  encodingField: "content-encoding",
  acceptField: "accept-encoding",
  timeoutField: "connect-timeout-ms",
};
const connectStream: Omit<CallProtocol, "json"> = {
  name: "connect",
  enveloped: true,
  encodingField: "connect-content-encoding",
  acceptField: "connect-accept-encoding",
  timeoutField: "connect-timeout-ms",
};
const grpc: Omit<CallProtocol, "json"> = {
  name: "grpc",
  enveloped: true,
  encodingField: "grpc-encoding",
  acceptField: "grpc-accept-encoding",
  timeoutField: "grpc-timeout",
};

function both(base: Omit<CallProtocol, "json">): { readonly proto: CallProtocol; readonly json: CallProtocol } {
  return { proto: { ...base, json: false }, json: { ...base, json: true } };
}

const families = {
  connectUnary: both(connectUnary),
  connectStream: both(connectStream),
  grpc: both(grpc),
  grpcWeb: both({ ...grpc, name: "grpc-web" }),
};

const contentTypePattern =
  /^application\/(?:(connect\+|grpc\+|grpc-web\+)?(?:(proto)|(json)(?:; ?charset=utf-?8)?)|(grpc-web|grpc))$/i;

/**
 * The protocol of a POST by its content type; `undefined` for one that the
 * method's kind is not served with.
 */
export function protocolOfContentType(contentType: string, kind: DescMethod["methodKind"]): CallProtocol | undefined {
  const match = contentTypePattern.exec(contentType);
  if (match === null) return undefined;
  const [, prefix, , json, bare] = match;
  const codec = json === undefined ? "proto" : "json";
  switch ((prefix ?? bare ?? "").toLowerCase().replace("+", "")) {
    case "grpc":
      return families.grpc[codec];
    case "grpc-web":
      return families.grpcWeb[codec];
    case "connect":
      return kind === "unary" ? undefined : families.connectStream[codec];
    default:
      return kind === "unary" ? families.connectUnary[codec] : undefined;
  }
}

/** The protocol of a Connect GET by its `encoding` parameter. */
export function protocolOfQuery(encoding: string | null): CallProtocol | undefined {
  return encoding === "json" || encoding === "proto" ? families.connectUnary[encoding] : undefined;
}
