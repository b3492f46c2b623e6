import type { Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";

/** What is known of a call before its credential was looked at. */
export interface IncomingCall {
  /** The address that it came from; empty in the mesh. */
  readonly source: string;
  /** The service that the TLS connection's certificate names; `undefined` where there is none. */
  readonly peerIdentity: string | undefined;
  /** The request's id, handed on where somebody must be asked. */
  readonly requestId: string;
  /** The W3C trace context, handed on likewise. */
  readonly traceparent: string;
  /** Ends with the call. */
  readonly signal: AbortSignal;
}

/** Who calls. */
export interface Authentication {
  /** Who acts; `undefined` if a service calls for itself. Frozen, shared by all calls with the same credential. */
  readonly principal: Principal | undefined;
  /** The service that calls; `undefined` at the edge. */
  readonly callingService: string | undefined;
}

/** Turns a call's credential into who calls. */
export interface Authenticator {
  /**
   * Who calls, at once where it is remembered.
   *
   * @throws AppError UNAUTHENTICATED if there is no credential or a refused one (see `Refusal`), CALLER_NOT_ALLOWED if
   *   the connection belongs to another service, RATE_LIMITED after too many refused ones, UNAVAILABLE if it could not
   *   be checked
   */
  authenticate(header: Headers, call: IncomingCall): Authentication | Promise<Authentication>;
}
