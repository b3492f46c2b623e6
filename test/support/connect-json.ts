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
  const json = new TextEncoder().encode(JSON.stringify(request));
  const response = await fetch(`${baseUrl}/${method.parent.typeName}/${method.name}`, {
    method: "POST",
    headers: {
      "content-type": isUnary ? "application/json" : "application/connect+json",
      "connect-protocol-version": "1",
      ...(credential === undefined ? {} : { authorization: `Bearer ${credential}` }),
    },
    body: isUnary ? json : envelope(json),
  });
  const text = isUnary ? await response.text() : await firstFrame(response);
  const headers = Object.fromEntries([...response.headers].filter(([name]) => !volatileHeaders.has(name)));
  const requestId = response.headers.get("x-request-id") ?? "req_none";
  return {
    status: response.status,
    headers,
    body: maskRequestId(text, requestId),
    reason: reasonOf(text),
  };
}

function envelope(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(5 + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, 5);
  return frame;
}

async function firstFrame(response: Response): Promise<string> {
  const reader = response.body?.getReader();
  if (reader === undefined) return "";
  let bytes = new Uint8Array();
  try {
    for (;;) {
      if (bytes.length >= 5) {
        const end = 5 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
        if (bytes.length >= end) return new TextDecoder().decode(bytes.subarray(5, end));
      }
      const { done, value } = await reader.read();
      if (done) return new TextDecoder().decode(bytes.subarray(5));
      const joined = new Uint8Array(bytes.length + value.length);
      joined.set(bytes);
      joined.set(value, bytes.length);
      bytes = joined;
    }
  } finally {
    await reader.cancel();
  }
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
function maskRequestId(text: string, requestId: string): string {
  const info = Buffer.concat([Buffer.from([0x0a, requestId.length]), Buffer.from(requestId)]).toString("base64");
  return text.replaceAll(info.replaceAll("=", ""), "REQUEST").replaceAll(requestId, "REQUEST");
}
