import { AppError } from "../errors/app-error.ts";

const grpcUnitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/**
 * The timeout in a request's headers, in milliseconds; `undefined` for none.
 * Connect sends `connect-timeout-ms`, gRPC and gRPC-Web `grpc-timeout`.
 *
 * @throws AppError INVALID_TIMEOUT if it is malformed or not positive
 */
export function timeoutMsOf(header: Headers): number | undefined {
  const connect = header.get("connect-timeout-ms");
  if (connect !== null) {
    if (/^[0-9]{1,10}$/.test(connect) && Number(connect) > 0) return Number(connect);
    throw new AppError("INVALID_TIMEOUT", "connect-timeout-ms: must be 1 to 10 digits and more than 0");
  }
  const grpc = header.get("grpc-timeout");
  if (grpc !== null) {
    const match = /^([0-9]{1,8})([HMSmun])$/.exec(grpc);
    const unitMs = grpcUnitMs[match?.[2] ?? ""];
    if (match?.[1] !== undefined && unitMs !== undefined && Number(match[1]) > 0) return Number(match[1]) * unitMs;
    throw new AppError("INVALID_TIMEOUT", "grpc-timeout: must be 1 to 8 digits, more than 0, and a unit");
  }
  return undefined;
}
