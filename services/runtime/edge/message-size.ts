import { AppError } from "../errors/app-error.ts";

/** The failure of a message over its limit. Names the limit, never the size. */
export function tooLarge(maxBytes: number): AppError {
  return new AppError("MESSAGE_TOO_LARGE", `the message is larger than ${maxBytes} bytes`, {
    quotas: [
      {
        subject: "message",
        limit: "message_bytes",
        value: BigInt(maxBytes),
        description: "bytes of one message, after inflation",
      },
    ],
  });
}
