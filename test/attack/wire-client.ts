import * as http from "node:http";
import * as http2 from "node:http2";
import * as https from "node:https";
import * as net from "node:net";
import { gunzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { ErrorInfoSchema } from "@cadre/gen/google/rpc/error_details_pb";
import { StatusSchema } from "@cadre/gen/google/rpc/status_pb";

/** The ways to call that each row is tried in. */
export const unaryProtocols = ["connect", "grpc", "grpc-web"] as const;
export type WireProtocol = (typeof unaryProtocols)[number];

export function sessionMethod(name: string): string {
  return `/cadre.orchestrator.v1.SessionService/${name}`;
}

export const callToolMethod = "/cadre.tools.v1.ToolService/CallTool";

/** An answer as bytes. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly trailers: Readonly<Record<string, string | string[] | undefined>>;
  readonly bytes: Buffer;
}

/** An answer as a call. */
export interface CallAnswer {
  readonly status: number;
  /** The Connect or gRPC code; 0 is ok, -1 is an answer without one. */
  readonly code: number;
  /** `google.rpc.ErrorInfo.reason`, or empty. */
  readonly reason: string;
  readonly message: string;
  readonly headers: RawAnswer["headers"];
  /** The messages of the answer, raw. */
  readonly messages: readonly Buffer[];
}

/** Sends an HTTP/1.1 request on a connection of its own. */
export function request1(
  port: number,
  options: http.RequestOptions & { readonly secure?: boolean },
  body: Uint8Array | string = "",
): Promise<RawAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>();
  const { secure, ...rest } = options;
  const send = secure === true ? https.request : http.request;
  const request = send({
    host: "127.0.0.1",
    port,
    agent: false,
    rejectUnauthorized: false,
    ...rest,
  } as https.RequestOptions);
  request.on("response", (response) => {
    const chunks: Buffer[] = [];
    response.on("data", (chunk: Buffer) => chunks.push(chunk));
    response.on("error", reject);
    response.on("end", () =>
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        trailers: response.trailers,
        bytes: Buffer.concat(chunks),
      }),
    );
  });
  request.on("error", reject);
  request.end(body);
  return promise;
}

/** Sends an HTTP/2 request on a session of its own, or on the given one. */
export async function request2(
  target: number | http2.ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body: Uint8Array | string = "",
): Promise<RawAnswer> {
  const session =
    typeof target === "number" ? http2.connect(`http://127.0.0.1:${target}`, { maxSessionMemory: 1_000 }) : target;
  try {
    return await new Promise<RawAnswer>((resolve, reject) => {
      session.once("error", reject);
      const stream = session.request(headers, { endStream: body.length === 0 });
      let answer: http2.IncomingHttpHeaders = {};
      let trailers: http2.IncomingHttpHeaders = {};
      const chunks: Buffer[] = [];
      stream.on("response", (received) => {
        answer = received;
      });
      stream.on("trailers", (received) => {
        trailers = received;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", reject);
      stream.on("close", () =>
        resolve({
          status: Number(answer[":status"] ?? 0),
          headers: answer as RawAnswer["headers"],
          trailers: trailers as RawAnswer["trailers"],
          bytes: Buffer.concat(chunks),
        }),
      );
      if (body.length > 0) stream.end(body);
    });
  } finally {
    if (typeof target === "number") session.destroy();
  }
}

/** Calls a unary method with JSON over Connect and HTTP/1.1, as `curl` would. */
export async function callConnect(
  port: number,
  path: string,
  body: unknown,
  options: { readonly secure?: boolean } = {},
): Promise<{ readonly status: number; readonly body: unknown }> {
  const answer = await request1(
    port,
    {
      ...options,
      method: "POST",
      path,
      headers: { "content-type": "application/json", "connect-protocol-version": "1" },
    },
    JSON.stringify(body),
  );
  return { status: answer.status, body: JSON.parse(answer.bytes.toString() || "null") };
}

export interface CallOptions {
  readonly json?: boolean;
  /** A streaming method, which matters to Connect only. */
  readonly stream?: boolean;
  readonly headers?: http.OutgoingHttpHeaders;
  /** The encoding that the message is said to have; its bytes are sent as they are. */
  readonly encoding?: string;
  /** Bit 0 of the envelope; set when there is an encoding, unless said. */
  readonly compressed?: boolean;
}

/** Calls a method with a message's bytes, whatever they are. gRPC goes over h2c, the others over HTTP/1.1. */
export async function call(
  port: number,
  protocol: WireProtocol,
  path: string,
  message: Uint8Array | string,
  options: CallOptions = {},
): Promise<CallAnswer> {
  const codec = options.json === true ? "json" : "proto";
  const enveloped = protocol !== "connect" || options.stream === true;
  const contentType =
    protocol === "connect" ? `application/${enveloped ? "connect+" : ""}${codec}` : `application/${protocol}+${codec}`;
  const encodingField =
    protocol !== "connect" ? "grpc-encoding" : enveloped ? "connect-content-encoding" : "content-encoding";
  const headers: http.OutgoingHttpHeaders = {
    "content-type": contentType,
    ...(protocol === "connect" ? { "connect-protocol-version": "1" } : {}),
    ...(options.encoding === undefined ? {} : { [encodingField]: options.encoding }),
    ...options.headers,
  };
  const compressed = options.compressed ?? options.encoding !== undefined;
  const body = enveloped ? envelope(message, compressed ? 1 : 0) : message;
  const answer =
    protocol === "grpc"
      ? await request2(port, { ":method": "POST", ":path": path, te: "trailers", ...headers }, body)
      : await request1(port, { method: "POST", path, headers }, body);
  return readAnswer(answer, protocol, enveloped);
}

/** Puts a message into an envelope. */
export function envelope(message: Uint8Array | string, flags = 0, length = Buffer.byteLength(message)): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, Buffer.from(message as Uint8Array)]);
}

const connectCodes: readonly string[] = [
  "ok",
  "canceled",
  "unknown",
  "invalid_argument",
  "deadline_exceeded",
  "not_found",
  "already_exists",
  "permission_denied",
  "resource_exhausted",
  "failed_precondition",
  "aborted",
  "out_of_range",
  "unimplemented",
  "internal",
  "unavailable",
  "data_loss",
  "unauthenticated",
];

/** Reads an answer in the form of its protocol. */
export function readAnswer(answer: RawAnswer, protocol: WireProtocol, enveloped: boolean): CallAnswer {
  const base = { status: answer.status, headers: answer.headers, messages: [] as Buffer[], reason: "", message: "" };
  if (answer.status !== 200 && !(protocol === "connect" && isJson(answer))) return { ...base, code: -1 };
  if (protocol === "connect" && !enveloped) {
    if (answer.status === 200) return { ...base, code: 0, messages: [answer.bytes] };
    return { ...base, ...readConnectError(JSON.parse(answer.bytes.toString())) };
  }
  const envelopes = readEnvelopes(answer.bytes);
  const messages = envelopes.filter(({ flags }) => (flags & ~1) === 0).map(({ data }) => data);
  const end = envelopes.find(({ flags }) => (flags & ~1) !== 0);
  if (protocol === "connect") {
    const { error } = JSON.parse(end === undefined ? "{}" : inflated(end)) as { error?: unknown };
    return {
      ...base,
      messages,
      ...(error === undefined ? { code: end === undefined ? -1 : 0 } : readConnectError(error)),
    };
  }
  const trailers =
    protocol === "grpc"
      ? { ...answer.headers, ...answer.trailers }
      : Object.fromEntries(
          (end === undefined ? "" : inflated(end))
            .split("\r\n")
            .filter((line) => line !== "")
            .map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
        );
  const code = Number(trailers["grpc-status"] ?? -1);
  const details = trailers["grpc-status-details-bin"];
  const status = typeof details === "string" ? fromBinary(StatusSchema, Buffer.from(details, "base64")) : undefined;
  const info = status?.details.map((any) => anyUnpack(any, ErrorInfoSchema)).find((found) => found !== undefined);
  return { ...base, messages, code, reason: info?.reason ?? "", message: status?.message ?? "" };
}

function isJson(answer: RawAnswer): boolean {
  return answer.headers["content-type"] === "application/json";
}

function readConnectError(error: unknown): Pick<CallAnswer, "code" | "reason" | "message"> {
  const { code, message, details } = error as {
    code: string;
    message?: string;
    details?: { type: string; value: string }[];
  };
  const info = details?.find(({ type }) => type === "google.rpc.ErrorInfo");
  return {
    code: connectCodes.indexOf(code),
    message: message ?? "",
    reason: info === undefined ? "" : fromBinary(ErrorInfoSchema, Buffer.from(info.value, "base64")).reason,
  };
}

function readEnvelopes(bytes: Buffer): { readonly flags: number; readonly data: Buffer }[] {
  const result: { flags: number; data: Buffer }[] = [];
  for (let position = 0; position + 5 <= bytes.length; ) {
    const length = bytes.readUInt32BE(position + 1);
    result.push({ flags: bytes.readUInt8(position), data: bytes.subarray(position + 5, position + 5 + length) });
    position += 5 + length;
  }
  return result;
}

function inflated({ flags, data }: { readonly flags: number; readonly data: Buffer }): string {
  return ((flags & 1) === 1 ? gunzipSync(data) : data).toString();
}

/** Writes raw bytes on a connection and returns what came until it was closed, or until `untilMs`. */
export function rawExchange(
  port: number,
  bytes: string | Uint8Array,
  untilMs = 3_000,
): Promise<{ readonly text: string; readonly closed: boolean }> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    const chunks: Buffer[] = [];
    const settle = (closed: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ text: Buffer.concat(chunks).toString("latin1"), closed });
    };
    const timer = setTimeout(() => settle(false), untilMs);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", () => {
      // "close" follows.
    });
    socket.once("close", () => settle(true));
    socket.write(bytes);
  });
}
