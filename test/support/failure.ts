import { ConnectError } from "@connectrpc/connect";
import { fromConnectError } from "../../services/runtime/errors/failure.ts";

/** The reason that a call failed with; `ok` if it did not fail. */
export async function reasonOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "ok";
  } catch (thrown) {
    if (!(thrown instanceof ConnectError)) throw thrown;
    return fromConnectError(thrown)?.reason ?? `no reason: ${thrown.message}`;
  }
}
