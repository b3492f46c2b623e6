import { createHash } from "node:crypto";
import type { AuthenticationService, Principal } from "@cadre/gen/cadre/credentials/v1/identity_pb";
import type { RunRequested } from "@cadre/gen/cadre/events/v1/run_request_pb";
import type { Client } from "@connectrpc/connect";
import { toAppError } from "../../runtime/errors/failure.ts";
import { onBehalfOfCall } from "../../runtime/identity/asking-call.ts";
import { assertPrincipal, freezePrincipal } from "../../runtime/identity/principal.ts";
import { refused } from "../../runtime/identity/refusal.ts";

/** Finds out who asks for a run through the bus. */
export interface RequestAuthority {
  /**
   * Whom the token of a request stands for, if it was made for its bytes, and
   * what they may do now. A refusal is in the audit log with its true reason.
   *
   * @throws AppError UNAUTHENTICATED if there is no token, or one that is refused
   * @throws AppError UNAVAILABLE if it cannot be checked
   */
  authenticate(
    requested: Pick<RunRequested, "request" | "token">,
    origin: { readonly requestId: string; readonly traceparent: string },
    signal: AbortSignal,
  ): Promise<Principal>;
}

/** What the audit log has as the address of what came through the bus. */
const source = "bus";

/** Asks credentials, for each request anew: a token is for one. */
export function createRequestAuthority(
  client: Pick<Client<typeof AuthenticationService>, "authenticate">,
): RequestAuthority {
  return {
    async authenticate({ request, token }, origin, signal) {
      // The contract wants one, and whoever writes to the topic need not heed it.
      if (token === "") throw refused("NO_CREDENTIAL");
      const runRequestSha256 = createHash("sha256").update(request).digest();
      const call = { ...origin, source, signal, peerIdentity: undefined };
      try {
        const { principal } = await client.authenticate(
          { credential: token, sourceAddress: source, runRequestSha256 },
          onBehalfOfCall(call),
        );
        if (principal === undefined) throw refused("REFUSED", { audited: true });
        assertPrincipal(principal);
        return freezePrincipal(principal);
      } catch (thrown) {
        throw toAppError(thrown);
      }
    },
  };
}
