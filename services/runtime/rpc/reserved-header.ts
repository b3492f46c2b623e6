const reserved: ReadonlySet<string> = new Set([
  "accept-encoding",
  "connection",
  "content-length",
  "content-type",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "user-agent",
]);

/**
 * Whether a header belongs to HTTP or to gRPC itself. Such a header is not an
 * application's to send, and is not shown to it when it comes in; on no plane
 * of the mesh does it cross.
 *
 * @param name in lower case
 */
export function isReservedHeader(name: string): boolean {
  return name.startsWith("grpc-") || name.startsWith(":") || reserved.has(name);
}
