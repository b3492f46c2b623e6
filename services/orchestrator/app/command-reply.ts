import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type CommandRefused,
  CommandRefusedSchema,
  type CommandReply,
  CommandReplySchema,
} from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import { reasonName, reasonNumber } from "../../runtime/errors/failure.ts";

/** The stored form of an answer. */
export function encodeReply(reply: CommandReply): Uint8Array {
  return toBinary(CommandReplySchema, reply);
}

/** The stored form of a refusal. */
export function refusal(error: AppError): Uint8Array {
  const quota = error.quotas[0];
  const refused = create(CommandRefusedSchema, {
    reason: reasonNumber(error.reason),
    message: error.message,
    metadata: { ...error.metadata },
    retryAfterMs: BigInt(error.retryAfterMs ?? 0),
    limit: quota?.limit ?? "",
    limitValue: quota?.value ?? 0n,
    limitSubject: quota?.subject ?? "",
  });
  return encodeReply(create(CommandReplySchema, { outcome: { case: "refused", value: refused } }));
}

/** Reads an answer. Throws the refusal as it was. */
export function decodeReply(bytes: Uint8Array): CommandReply {
  const reply = fromBinary(CommandReplySchema, bytes);
  if (reply.outcome.case === "refused") throw toAppError(reply.outcome.value);
  return reply;
}

function toAppError(refused: CommandRefused): AppError {
  const { limit, limitSubject, limitValue } = refused;
  return new AppError(reasonName(refused.reason), refused.message, {
    metadata: refused.metadata,
    ...(refused.retryAfterMs > 0n ? { retryAfterMs: Number(refused.retryAfterMs) } : {}),
    ...(limit === ""
      ? {}
      : { quotas: [{ subject: limitSubject, limit, value: limitValue, description: refused.message }] }),
  });
}
