import { Code, type ConnectError, type Interceptor } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import { toAppError, toConnectError } from "../errors/failure.ts";
import { newId } from "../ids/id.ts";
import type { Logger } from "../log/log.ts";
import { observeStream } from "../rpc/message-stream.ts";
import { requestContext } from "../rpc/request-context.ts";

/**
 * Turns whatever is thrown into the contract's form, in one place. What is no
 * failure of the contract is a bug: it is logged whole under an error id, and
 * the caller gets that id and nothing else.
 */
export function errors(log: Logger): Interceptor {
  return (next) => async (request) => {
    const { requestId } = requestContext(request.contextValues);
    const translate = (thrown: unknown): ConnectError => {
      const failure = toAppError(thrown);
      if (failure.reason !== "INTERNAL") {
        const error = toConnectError(failure, requestId);
        // RFC 9110, 11.6.1: a 401 says how to authenticate.
        if (error.code === Code.Unauthenticated) error.metadata.set("www-authenticate", "Bearer");
        return error;
      }
      const errorId = newId("evt");
      log.error(
        { err: failure.cause ?? failure, error_id: errorId, request_id: requestId, rpc: request.method.name },
        "internal error",
      );
      return toConnectError(new AppError("INTERNAL", "internal error", { metadata: { error_id: errorId } }), requestId);
    };
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: observeStream(response.message, { translate }) } : response;
    } catch (thrown) {
      throw translate(thrown);
    }
  };
}
