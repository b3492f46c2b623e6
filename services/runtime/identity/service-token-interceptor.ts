import type { Interceptor } from "@connectrpc/connect";
import type { ServiceName } from "../mesh/mesh.ts";
import { requestContextKey } from "../rpc/request-context.ts";
import type { ServiceIdentity } from "./service-identity.ts";
import { createServiceTokenSigner, serviceTokenHeader } from "./service-token.ts";
import { encodeToldRequest, requestHeader } from "./told-request.ts";

/**
 * Gives each call to a peer the service's own identity and, from the request
 * that it is made for (see `onBehalfOf`), the principal, the request id, the
 * trace and the address that it came from.
 */
export function createServiceTokenInterceptor(identity: ServiceIdentity, audience: ServiceName): Interceptor {
  const signer = createServiceTokenSigner(identity, audience);
  return (next) => async (request) => {
    const scope = request.contextValues.get(requestContextKey);
    const token = signer.token(scope?.principal);
    request.header.set(serviceTokenHeader, typeof token === "string" ? token : await token);
    if (scope !== undefined) request.header.set(requestHeader, encodeToldRequest(scope));
    return next(request);
  };
}
