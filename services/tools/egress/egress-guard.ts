import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { buildConnector, Client, errors } from "undici";
import { AppError } from "../../runtime/errors/app-error.ts";
import { type AddressClass, classifyAddress } from "./address.ts";
import { type AllowList, hostAndPort, type Target } from "./allow-list.ts";
import { parseTarget, type TargetRefusal } from "./target.ts";

// Invariants:
// 1. Nothing is connected to that the allow-list does not name.
// 2. Addresses are judged when the connection is made, after the name was
//    resolved for it, and the connection goes to the address that was judged:
//    a name that resolves differently a moment later gains nothing.
// 3. If one address of a name is internal, none of them is used.
// 4. No redirect is followed, and no proxy is asked, whatever the environment says.
// 5. What comes back is bounded in time, in bytes on the wire, and unpacked.

/** Why a request was refused. */
export type DenialClass =
  | TargetRefusal
  | Exclude<AddressClass, "public">
  | "not_allowed"
  | "internal_name"
  | "redirect";

/** A refused request, as the audit log gets it: no path, no query. */
export interface EgressDenial {
  readonly class: DenialClass;
  /** The host that was asked for; empty if the URL could not be read. */
  readonly host: string;
}

/** Resolves a name to all of its addresses. Rejects if it has none. */
export type Resolve = (host: string) => Promise<readonly string[]>;

export interface EgressGuardOptions {
  readonly allow: AllowList;
  /** `host:port` whose addresses need not be public; they must be allowed as well. */
  readonly allowPrivate: ReadonlySet<string>;
  /** Told of every refused request, before the caller is. Must not reject. */
  readonly onDenied: (denial: EgressDenial) => Promise<void>;
  /** Default: the system's resolver. */
  readonly resolve?: Resolve;
  /** Of the whole request. Default 10,000. */
  readonly timeoutMs?: number;
}

export interface EgressRequest {
  readonly url: string;
  readonly method: "GET" | "HEAD";
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface EgressResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Unpacked; at most 10 MiB. */
  readonly body: Uint8Array;
}

/** The only way out of the process for what a tool was asked to fetch. */
export interface EgressGuard {
  /**
   * Makes one request.
   *
   * @throws AppError EGRESS_DENIED if the rules refuse it, or it is answered
   * with a redirect; MESSAGE_TOO_LARGE if the answer is larger than 10 MiB, has
   * more than 64 KiB of headers, or unpacks to more than 100 times its size;
   * DEADLINE_EXCEEDED after the timeout; CANCELLED; TOOL_FAILED if the host
   * cannot be reached or answers what is no HTTP
   */
  request(request: EgressRequest): Promise<EgressResponse>;
}

export const egressLimits = {
  timeoutMs: 10_000,
  maxBodyBytes: 10 * 1024 * 1024,
  maxHeaderBytes: 64 * 1024,
  maxInflation: 100,
  /** Small answers may unpack as they like. */
  inflationFreeBytes: 64 * 1024,
} as const;

/** Names that stand for something inside, whatever they resolve to here and now. */
const internalName =
  /^(?:metadata|instance-data)$|(?:^|\.)(?:localhost|local|internal|localdomain|home\.arpa)$|^metadata\.goog$/;

const lookupAll: Resolve = async (host) => (await lookup(host, { all: true })).map(({ address }) => address);

export function createEgressGuard(options: EgressGuardOptions): EgressGuard {
  const { allow, allowPrivate, onDenied, resolve = lookupAll, timeoutMs = egressLimits.timeoutMs } = options;

  async function deny(denial: EgressDenial): Promise<AppError> {
    await onDenied(denial);
    return new AppError("EGRESS_DENIED", `the egress rules refuse the request: ${denial.class}`, {
      metadata: { class: denial.class },
    });
  }

  /** The one address to connect to. */
  async function addressOf(target: Target): Promise<string> {
    const addresses = isIP(target.host) === 0 ? await resolveName(target.host) : [target.host];
    const isPrivateAllowed = allowPrivate.has(hostAndPort(target.host, target.port));
    for (const address of addresses) {
      const found = classifyAddress(address);
      if (found === "public" || (isPrivateAllowed && found !== "metadata" && found !== "malformed")) continue;
      throw await deny({ class: found, host: target.host });
    }
    const [first] = addresses;
    if (first === undefined) throw new AppError("TOOL_FAILED", "the host's name has no address");
    return first;
  }

  async function resolveName(host: string): Promise<readonly string[]> {
    try {
      return await resolve(host);
    } catch (cause) {
      throw new AppError("TOOL_FAILED", "the host's name has no address", { cause });
    }
  }

  function connector(target: Target): buildConnector.connector {
    const connect = buildConnector({ allowH2: false, timeout: timeoutMs, maxCachedSessions: 0 });
    return (connection, callback) => {
      addressOf(target).then(
        (address) => connect({ ...connection, hostname: address, servername: servername(target) }, callback),
        (error: Error) => callback(error, null),
      );
    };
  }

  return {
    async request({ url: text, method, headers, signal: callerSignal }) {
      const parsed = parseTarget(text);
      if (parsed.type === "refused") throw await deny({ class: parsed.refusal, host: "" });
      const { target, url } = parsed;
      if (isIP(target.host) !== 0) await addressOf(target);
      if (!allow.allows(target)) throw await deny({ class: "not_allowed", host: target.host });
      if (internalName.test(target.host) && !allowPrivate.has(hostAndPort(target.host, target.port))) {
        throw await deny({ class: "internal_name", host: target.host });
      }
      const timeout = AbortSignal.timeout(timeoutMs);
      const signal = AbortSignal.any([callerSignal, timeout]);
      // One connection for one request: nothing is reused that was judged for another.
      const client = new Client(url.origin, {
        connect: connector(target),
        maxHeaderSize: egressLimits.maxHeaderBytes,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        allowH2: false,
      });
      try {
        const response = await client.request({
          path: url.pathname + url.search,
          method,
          headers: { ...headers, "accept-encoding": "gzip, deflate, br" },
          signal,
        });
        // A body that is not read to its end breaks with the connection; without a listener that would end the process.
        response.body.on("error", () => undefined);
        if (response.statusCode >= 300 && response.statusCode < 400 && response.headers["location"] !== undefined) {
          throw await deny({ class: "redirect", host: target.host });
        }
        const encoding = method === "HEAD" ? undefined : response.headers["content-encoding"];
        const body = await readBody(response.body, encoding, signal);
        return { status: response.statusCode, headers: response.headers, body };
      } catch (error) {
        throw toFailure(error, { callerSignal, timeout, timeoutMs });
      } finally {
        await client.destroy();
      }
    },
  };
}

/** TLS names a host; an address is none (RFC 6066), so there the certificate is checked for the address. */
function servername(target: Target): string {
  return isIP(target.host) === 0 ? target.host : "";
}

function toFailure(
  error: unknown,
  context: { readonly callerSignal: AbortSignal; readonly timeout: AbortSignal; readonly timeoutMs: number },
): AppError {
  if (error instanceof AppError) return error;
  if (context.callerSignal.aborted) return new AppError("CANCELLED", "the call was cancelled", { cause: error });
  const isLate =
    context.timeout.aborted || error instanceof errors.HeadersTimeoutError || error instanceof errors.BodyTimeoutError;
  if (isLate || error instanceof errors.ConnectTimeoutError) {
    return new AppError("DEADLINE_EXCEEDED", `the host did not answer within ${context.timeoutMs} ms`, {
      cause: error,
    });
  }
  if (error instanceof errors.HeadersOverflowError) {
    return new AppError(
      "MESSAGE_TOO_LARGE",
      `the answer has more than ${egressLimits.maxHeaderBytes} bytes of headers`,
      {
        cause: error,
      },
    );
  }
  return new AppError("TOOL_FAILED", "the host could not be reached, or its answer broke off", { cause: error });
}

async function readBody(
  body: Readable,
  encoding: string | string[] | undefined,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let packedBytes = 0;
  let bytes = 0;
  const countPacked = async function* (source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      packedBytes += chunk.byteLength;
      if (packedBytes > egressLimits.maxBodyBytes) throw tooLarge(`${egressLimits.maxBodyBytes} bytes`);
      yield chunk;
    }
  };
  const collect = async (source: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of source) {
      bytes += chunk.byteLength;
      if (bytes > egressLimits.maxBodyBytes) throw tooLarge(`${egressLimits.maxBodyBytes} bytes`);
      if (bytes > egressLimits.inflationFreeBytes && bytes > packedBytes * egressLimits.maxInflation) {
        throw tooLarge(`${egressLimits.maxInflation} times what was sent`);
      }
      chunks.push(chunk);
    }
  };
  switch (typeof encoding === "string" ? encoding.toLowerCase() : encoding) {
    case undefined:
    case "":
    case "identity":
      await pipeline(body, countPacked, collect, { signal });
      break;
    case "gzip":
    case "x-gzip":
      await pipeline(body, countPacked, createGunzip(), collect, { signal });
      break;
    case "deflate":
      await pipeline(body, countPacked, createInflate(), collect, { signal });
      break;
    case "br":
      await pipeline(body, countPacked, createBrotliDecompress(), collect, { signal });
      break;
    default:
      throw new AppError("TOOL_FAILED", "the answer is packed in a way that was not asked for");
  }
  return Buffer.concat(chunks);
}

function tooLarge(limit: string): AppError {
  return new AppError("MESSAGE_TOO_LARGE", `the answer is larger than ${limit}`);
}
