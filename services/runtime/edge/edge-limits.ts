const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;

/**
 * What the public port grants to strangers. Milliseconds and bytes throughout.
 * Owners raise single values by name, for example `maxConnectionsPerSource`
 * for a load test from one machine.
 */
export interface EdgeLimits {
  /** Connections of the process. Two file descriptors each at worst, well under the usual 4,096. */
  readonly maxConnections: number;
  /** Connections of one IPv4 address or IPv6 /64. A browser opens 6, a pool 10 to 20. Named proxies are exempt. */
  readonly maxConnectionsPerSource: number;
  /** From the connection to the first byte. */
  readonly firstByteTimeoutMs: number;
  /** From the first byte of TLS to the end of the handshake. */
  readonly tlsHandshakeTimeoutMs: number;

  /** HTTP/1.1: until the header is complete. HTTP/2: until the preface is complete, and for a header that drips. */
  readonly headersTimeoutMs: number;
  /** HTTP/1.1: until header and body are complete. */
  readonly requestTimeoutMs: number;
  /** HTTP/1.1: how long an idle connection waits for its next request. Over 60 s, so that usual load balancers close first. */
  readonly keepAliveTimeoutMs: number;
  /** How often the timeouts above are looked at; they can be late by that much. */
  readonly checkIntervalMs: number;
  /** HTTP/1.1: requests on one connection, so that connections move to other processes. */
  readonly maxRequestsPerSocket: number;
  /** Header fields of a request. */
  readonly maxHeaders: number;
  /** Names and values of a request's header together. */
  readonly maxHeaderBytes: number;
  /** Name and value of one field. A JWT of 4 KiB is refused by authentication anyway. */
  readonly maxHeaderFieldBytes: number;

  /** HTTP/2: streams that are open at once on a connection; more are refused with REFUSED_STREAM. */
  readonly maxStreamsPerConnection: number;
  /** HTTP/2: invalid frames before the session is cut. */
  readonly maxInvalidFrames: number;
  /** HTTP/2: refused streams before the session is cut. */
  readonly maxRejectedStreams: number;
  /** HTTP/2: entries of one SETTINGS frame. */
  readonly maxSettings: number;
  /** HTTP/2: SETTINGS frames in `floodWindowMs`. gRPC clients that tune their window send a dozen. */
  readonly maxSettingsFrames: number;
  /** HTTP/2: mebibytes that Node may hold for a session. */
  readonly maxSessionMemoryMiB: number;
  /** HTTP/2: a session without streams for this long is closed. */
  readonly sessionIdleMs: number;
  /** HTTP/2: age at which a session is told to go away, less or more by `sessionAgeJitter` (gRPC A9). */
  readonly sessionMaxAgeMs: number;
  /** A tenth: sessions that came together do not leave together. */
  readonly sessionAgeJitter: number;
  /** HTTP/2: what runs on a session that must go may go on for this long. */
  readonly sessionGraceMs: number;
  /** HTTP/2: streams that the peer may reset in `floodWindowMs` (CVE-2023-44487); then GOAWAY, and what runs may end. */
  readonly maxResets: number;
  /** HTTP/2: PINGs in `floodWindowMs` that no data of ours gave a reason for, without open streams (gRPC A8). */
  readonly maxIdlePings: number;
  /** The same with open streams: a keepalive every 10 s, and some. */
  readonly maxStreamPings: number;
  readonly floodWindowMs: number;

  /** Body of a request: from here on it must have come by `minBodyBytesPerSecond` on average. */
  readonly bodyGraceMs: number;
  readonly minBodyBytesPerSecond: number;
  /** How long the rest of a body is read and dropped when its request was answered before its end, so that the answer arrives. */
  readonly lingerMs: number;
  /**
   * Bytes that wait for the reader of a stream before more is made, beside the message that is being written. Small
   * messages cost Node several times their size while they wait, so this stands well below the 1 MiB that we promise.
   */
  readonly maxBufferedBytes: number;
  /** How long a reader may take nothing. */
  readonly stallTimeoutMs: number;
  /** Bytes of request bodies, compressed and not, that the process holds. */
  readonly maxInFlightBytes: number;
  /** Of these, of one org; before the org is known, from one address. A quarter, so that no tenant shuts the others out. */
  readonly maxInFlightBytesPerTenant: number;
}

/** The defaults. */
export const edgeLimits: EdgeLimits = Object.freeze({
  maxConnections: 2_000,
  maxConnectionsPerSource: 50,
  firstByteTimeoutMs: 10_000,
  tlsHandshakeTimeoutMs: 10_000,

  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  keepAliveTimeoutMs: 65_000,
  checkIntervalMs: 5_000,
  maxRequestsPerSocket: 1_000,
  maxHeaders: 100,
  maxHeaderBytes: 16 * kibibyte,
  maxHeaderFieldBytes: 4 * kibibyte,

  maxStreamsPerConnection: 100,
  maxInvalidFrames: 100,
  maxRejectedStreams: 50,
  maxSettings: 16,
  maxSettingsFrames: 50,
  maxSessionMemoryMiB: 10,
  sessionIdleMs: 5 * 60_000,
  sessionMaxAgeMs: 60 * 60_000,
  sessionAgeJitter: 0.1,
  sessionGraceMs: 5 * 60_000,
  maxResets: 100,
  maxIdlePings: 2,
  maxStreamPings: 10,
  floodWindowMs: 10_000,

  bodyGraceMs: 10_000,
  minBodyBytesPerSecond: kibibyte,
  lingerMs: 5_000,
  maxBufferedBytes: 64 * kibibyte,
  stallTimeoutMs: 60_000,
  maxInFlightBytes: 64 * mebibyte,
  maxInFlightBytesPerTenant: 16 * mebibyte,
});

/** Sizes of messages, of a method's kind. */
export const messageLimits = Object.freeze({
  /** Of a unary method: request and response. */
  unaryMaxBytes: 4 * mebibyte,
  /** Of a streaming method: each message. */
  streamMaxBytes: mebibyte,
});
