import type { ConnectError } from "@connectrpc/connect";
import type { InteropRequest, InteropResponse } from "../support/gen/cadre/test/v1/interop_pb.js";

/** The four kinds of methods, by the names of the interop service's. */
export const kinds = ["unary", "serverStream", "clientStream", "bidiStream"] as const;
export type Kind = (typeof kinds)[number];

/** What a client does. */
export interface Attempt {
  readonly kind: Kind;
  /** Sent in order; only the first for kinds that take one. */
  readonly requests: readonly InteropRequest[];
  /** Whether a stream of requests stays open after the last of them, until the call ends. */
  readonly keepOpen?: boolean;
  readonly header?: Headers;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** What a client saw. */
export interface Outcome {
  readonly messages: readonly InteropResponse[];
  readonly header: Headers;
  readonly trailer: Headers;
  readonly error: ConnectError | undefined;
  /** Whether the source of an open stream of requests was told to end. */
  readonly requestsReturned: boolean;
}

/** A client of one implementation, connected to a server. */
export interface InteropClient {
  attempt(attempt: Attempt): Promise<Outcome>;
  close(): Promise<void>;
}

/** A server of one implementation. */
export interface InteropServer {
  /** `host:port`, or `memory:tools`. */
  readonly address: string;
  close(): Promise<void>;
}
