import { request as httpRequest } from "node:http";
import type { DescMethod, JsonObject, JsonValue } from "@bufbuild/protobuf";

/** An answer as it came over the wire, with what differs between equal answers left out. */
export interface RawAnswer {
  readonly status: number;
  /** The answer's headers without the request's id and the time. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body; of a stream its first frame. Request ids are masked. */
  readonly body: string;
  /** The reason, if it is an error of the contract. */
  readonly reason: string | undefined;
}

const volatileHeaders = new Set([
  "x-request-id",
  "date",
  "content-length",
  "keep-alive",
  "connection",
  "transfer-encoding",
]);

/** Refused credentials are counted by address: each call comes from another one of loopback. */
let lastSource = 1;
function nextSource(): string {
  lastSource = (lastSource % 65_000) + 1;
  return `127.1.${lastSource >> 8}.${lastSource & 255}`;
}

/**
 * Calls a method by the Connect protocol with JSON, by hand: nothing of ours
 * stands between the test and the bytes. Of a stream the first frame is read.
 */
export async function callRaw(
  baseUrl: string,
  method: DescMethod,
  request: JsonObject,
  credential: string | undefined,
): Promise<RawAnswer> {
  const isUnary = method.methodKind === "unary";
  const json = Buffer.from(JSON.stringify(request));
  const { status, headers, text } = await post(`${baseUrl}/${method.parent.typeName}/${method.name}`, {
    headers: {
      "content-type": isUnary ? "application/json" : "application/connect+json",
      "connect-protocol-version": "1",
      ...(credential === undefined ? {} : { authorization: `Bearer ${credential}` }),
    },
    body: isUnary ? json : envelope(json),
    isUnary,
  });
  return {
    status,
    headers: Object.fromEntries(Object.entries(headers).filter(([name]) => !volatileHeaders.has(name))),
    body: maskRequestId(text),
    reason: reasonOf(text),
  };
}

interface Post {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  readonly isUnary: boolean;
}

function post(url: string, { headers, body, isUnary }: Post) {
  return new Promise<{ status: number; headers: Record<string, string>; text: string }>((resolve, reject) => {
    const outgoing = httpRequest(
      url,
      { method: "POST", headers, localAddress: nextSource(), agent: false },
      (incoming) => {
        let bytes = Buffer.alloc(0);
        const done = (text: string): void => {
          const pairs = Object.entries(incoming.headers).map(([name, value]) => [name, String(value)] as const);
          resolve({ status: incoming.statusCode ?? 0, headers: Object.fromEntries(pairs), text });
          outgoing.destroy();
        };
        incoming.on("data", (chunk: Buffer) => {
          bytes = Buffer.concat([bytes, chunk]);
          if (isUnary || bytes.length < 5) return;
          const end = 5 + bytes.readUInt32BE(1);
          if (bytes.length >= end) done(bytes.toString("utf8", 5, end));
        });
        incoming.on("end", () => done(bytes.toString("utf8", isUnary ? 0 : 5)));
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

function envelope(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(5 + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, 5);
  return frame;
}

interface WireError {
  readonly code?: string;
  readonly details?: readonly { readonly type: string; readonly value: string; readonly debug?: JsonValue }[];
}

function errorOf(text: string): WireError | undefined {
  if (!text.startsWith("{")) return undefined;
  const parsed = JSON.parse(text) as WireError & { readonly error?: WireError };
  return parsed.error ?? (parsed.code === undefined ? undefined : parsed);
}

function reasonOf(text: string): string | undefined {
  const info = errorOf(text)?.details?.find(({ type }) => type === "google.rpc.ErrorInfo");
  // The reason is field 1, a text: tag, length, characters.
  const bytes = info === undefined ? undefined : Buffer.from(info.value, "base64");
  return bytes === undefined ? undefined : bytes.subarray(2, 2 + (bytes[1] ?? 0)).toString();
}

/** The id stands in `google.rpc.RequestInfo`, as base64 of its bytes and in the debug form. */
function maskRequestId(text: string): string {
  const requestId = /req_[0-9a-z]{26}/.exec(text)?.[0];
  if (requestId === undefined) return text;
  const info = Buffer.concat([Buffer.from([0x0a, requestId.length]), Buffer.from(requestId)]).toString("base64");
  return text.replaceAll(info.replaceAll("=", ""), "REQUEST").replaceAll(requestId, "REQUEST");
}
