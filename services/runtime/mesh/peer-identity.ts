import { createContextKey } from "@connectrpc/connect";

/**
 * The service that a call came from, as its certificate proves; `undefined`
 * without mutual TLS. Set by the mesh's server before any interceptor runs.
 */
export const peerIdentityKey = createContextKey<string | undefined>(undefined, { description: "cadre.peer" });
