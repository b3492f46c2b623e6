import { AppError } from "../errors/app-error.ts";

/** What one request holds of a budget. */
export interface ByteLease {
  /** Takes more. Throws OVERLOADED, with a time to wait, if there is not enough; CANCELLED after the release. */
  take(bytes: number): void;
  /** Gives back what is held; more may be taken. */
  giveBack(): void;
  /** Gives everything back for good. Idempotent. */
  release(): void;
}

/** Bytes that requests may hold together. */
export interface ByteBudget {
  lease(): ByteLease;
  /** How much is taken. */
  readonly used: number;
}

/** Long enough for most requests that hold the budget to end. */
const retryAfterMs = 1_000;

/** Shares `maxBytes` among requests; nobody waits, because waiting holds bytes, too. */
export function createByteBudget(maxBytes: number): ByteBudget {
  let used = 0;
  return {
    get used() {
      return used;
    },
    lease() {
      let held = 0;
      let released = false;
      const giveBack = () => {
        used -= held;
        held = 0;
      };
      return {
        take(bytes) {
          // What is still read after its request has ended belongs to nobody who would give it back.
          if (released) throw new AppError("CANCELLED", "the request has ended");
          if (used + bytes > maxBytes) {
            throw new AppError("OVERLOADED", "too many request bytes are in flight", {
              retryAfterMs,
              quotas: [
                {
                  subject: "process",
                  limit: "in_flight_request_bytes",
                  value: BigInt(maxBytes),
                  description: "bytes of requests that are being read or served",
                },
              ],
            });
          }
          used += bytes;
          held += bytes;
        },
        giveBack,
        release() {
          released = true;
          giveBack();
        },
      };
    },
  };
}
