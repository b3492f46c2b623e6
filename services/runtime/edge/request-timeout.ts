import { AppError } from "../errors/app-error.ts";

/** Longest timeouts that a caller may ask for, in milliseconds. */
export const maxTimeouts = Object.freeze({ unaryMs: 5 * 60_000, streamMs: 15 * 60_000 });

const grpcUnitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/**
 * Checks a `connect-timeout-ms` or `grpc-timeout` before any timer sees it:
 * Node turns one of 2^31 ms or more into 1 ms.
 *
 * @returns milliseconds
 * @throws AppError INVALID_TIMEOUT if it is malformed, not positive, or longer than `maxMs`
 */
export function parseTimeout(name: "connect-timeout-ms" | "grpc-timeout", value: string, maxMs: number): number {
  const timeoutMs = name === "connect-timeout-ms" ? parseConnect(value) : parseGrpc(value);
  if (timeoutMs === undefined) throw new AppError("INVALID_TIMEOUT", `${name} is no timeout`);
  if (timeoutMs <= 0) throw new AppError("INVALID_TIMEOUT", `${name} is not positive`);
  if (timeoutMs > maxMs) throw new AppError("INVALID_TIMEOUT", `${name} is longer than ${maxMs} ms`);
  return timeoutMs;
}

function parseConnect(value: string): number | undefined {
  return /^\d{1,10}$/.test(value) ? Number(value) : undefined;
}

function parseGrpc(value: string): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(value) ?? [];
  const unitMs = grpcUnitMs[unit ?? ""];
  return digits === undefined || unitMs === undefined ? undefined : Number(digits) * unitMs;
}
