import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { AppError } from "../../services/runtime/errors/app-error.ts";
import { Behavior, type InteropRequest, type InteropService } from "./gen/cadre/test/v1/interop_pb.js";

/** What a test may learn of a handler that it watches. */
export interface HandlerWatch {
  /** A call arrived, with its context. */
  onStart?(callId: string, context: HandlerContext): void;
  /** The handler's signal aborted. */
  onAbort?(callId: string, reason: unknown): void;
  /** An answering generator ended, by whatever cause. */
  onReturn?(callId: string): void;
}

/** What `BEHAVIOR_FAIL` throws: text that needs escaping, violations and metadata. */
export function interopFailure(): AppError {
  return new AppError("SESSION_NOT_FOUND", 'no such session: 100 %, ü, 文, "quoted"\nand a second line', {
    violations: [{ field: "call_id", message: "must exist", rule: "exists" }],
    metadata: { why: "test" },
  });
}

/** The handlers of the interop service. They echo each request header whose name starts with `echo-`, as header and trailer. */
export function interopHandlers(watch: HandlerWatch = {}): ServiceImpl<typeof InteropService> {
  const begin = (request: InteropRequest, context: HandlerContext): void => {
    const { callId } = request;
    watch.onStart?.(callId, context);
    context.signal.addEventListener("abort", () => watch.onAbort?.(callId, context.signal.reason));
    context.requestHeader.forEach((value, name) => {
      if (!name.startsWith("echo-")) return;
      context.responseHeader.append(name, value);
      context.responseTrailer.append(name.replace("echo-", "echo-trailer-"), value);
    });
  };
  const end = async (request: InteropRequest, context: HandlerContext): Promise<void> => {
    if (request.behavior === Behavior.FAIL) throw interopFailure();
    if (request.behavior === Behavior.HANG) await aborted(context.signal);
  };
  return {
    async unary(request, context) {
      begin(request, context);
      await end(request, context);
      return { requests: 1, data: new Uint8Array(request.answerBytes) };
    },
    async *serverStream(request, context) {
      begin(request, context);
      try {
        for (let index = 0; index < request.count; index++)
          yield { index, requests: 1, data: new Uint8Array(request.answerBytes) };
        await end(request, context);
      } finally {
        watch.onReturn?.(request.callId);
      }
    },
    async clientStream(requests, context) {
      let first: InteropRequest | undefined;
      let count = 0;
      for await (const request of requests) {
        count += 1;
        if (first !== undefined) continue;
        first = request;
        begin(request, context);
        await end(request, context);
      }
      return { requests: count, data: new Uint8Array(first?.answerBytes ?? 0) };
    },
    async *bidiStream(requests, context) {
      let first: InteropRequest | undefined;
      let index = 0;
      try {
        for await (const request of requests) {
          if (first === undefined) begin(request, context);
          first ??= request;
          yield { index, requests: index + 1, data: new Uint8Array(request.answerBytes) };
          index += 1;
          await end(request, context);
        }
      } finally {
        watch.onReturn?.(first?.callId ?? "");
      }
    },
  };
}

/** Waits for the signal and fails with its reason. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
