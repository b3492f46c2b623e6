import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { type CommandReply, CommandReplySchema } from "@cadre/gen/cadre/orchestrator/journal/v1/command_pb";
import { AppError } from "../../runtime/errors/app-error.ts";
import type { AnswerStore } from "../store/answer-store.ts";
import type { AnsweredCommand } from "../store/append-store.ts";
import { encodeReply } from "./command-reply.ts";

/** A command that may be repeated: its key, and what tells it from another one with the same key. */
export interface RepeatableCommand {
  readonly orgUuid: string;
  readonly method: string;
  /** The caller's key. */
  readonly key: string;
  /** The request's bytes. */
  readonly request: Uint8Array;
}

/** What is stored with the effects of a command, so that its repetition is answered alike. */
export function answerTo(command: RepeatableCommand, reply: CommandReply): Omit<AnsweredCommand, "rootId"> {
  return { method: command.method, ...digestsOf(command), response: encodeReply(reply) };
}

/** The answer to an equal command with the same key, if there was one. Throws IDEMPOTENCY_KEY_REUSED. */
export async function findAnswer(answers: AnswerStore, command: RepeatableCommand): Promise<CommandReply | undefined> {
  const { keyDigest, requestDigest } = digestsOf(command);
  const before = await answers.find(command.orgUuid, command.method, keyDigest);
  if (before === undefined) return undefined;
  if (!Buffer.from(before.requestDigest).equals(requestDigest)) {
    throw new AppError("IDEMPOTENCY_KEY_REUSED", "idempotency-key: was used with another request");
  }
  return fromBinary(CommandReplySchema, before.response);
}

function digestsOf({ orgUuid, method, key, request }: RepeatableCommand) {
  return {
    keyDigest: createHash("sha256").update(`${orgUuid} ${method} ${key}`).digest(),
    requestDigest: createHash("sha256").update(request).digest(),
  };
}
