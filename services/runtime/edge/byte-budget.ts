import { createContextKey } from "@connectrpc/connect";
import { AppError } from "../errors/app-error.ts";
import type { EdgeLimits } from "./edge-limits.ts";

// Invariants:
// 1. What is held is counted twice: for the process, and for one tenant. Until
//    a request's org is known, its tenant is the address that it came from, so
//    that bodies that are still being read are counted, too.
// 2. A lease gives back to whom it took from, whatever moved in between.

/** What one request holds of a budget. */
export interface ByteLease {
  /** Takes more. Throws OVERLOADED, with a time to wait, if there is not enough; CANCELLED after the release. */
  take(bytes: number): void;
  /**
   * Moves what is held, and what will be, to the account of an org. Throws
   * OVERLOADED, with a time to wait, if that has not enough.
   */
  chargeTo(orgId: string): void;
  /** Gives back what is held; more may be taken. */
  giveBack(): void;
  /** Gives everything back for good. Idempotent. */
  release(): void;
}

/** Where the interceptors find the lease of a request among Connect's context values. */
export const byteLeaseKey = createContextKey<ByteLease | undefined>(undefined, { description: "cadre.byte-lease" });

/** Bytes that requests may hold together. */
export interface ByteBudget {
  /** @param source the address that the request came from */
  lease(source: string): ByteLease;
  /** How much is taken. */
  readonly used: number;
  /** How many orgs and addresses hold something. */
  readonly tenants: number;
}

/** Long enough for most requests that hold the budget to end. */
const retryAfterMs = 1_000;

/** An org, or an address. */
interface Tenant {
  readonly subject: "org" | "source";
  readonly key: string;
}

/** Shares bytes among requests; nobody waits, because waiting holds bytes, too. */
export function createByteBudget({
  maxInFlightBytes,
  maxInFlightBytesPerTenant,
}: Pick<EdgeLimits, "maxInFlightBytes" | "maxInFlightBytesPerTenant">): ByteBudget {
  let used = 0;
  /** Of those that hold anything. */
  const usedBy = new Map<string, number>();

  function assertRoom({ subject, key }: Tenant, bytes: number): void {
    if ((usedBy.get(key) ?? 0) + bytes <= maxInFlightBytesPerTenant) return;
    throw overloaded(subject, maxInFlightBytesPerTenant);
  }
  function add({ key }: Tenant, bytes: number): void {
    const sum = (usedBy.get(key) ?? 0) + bytes;
    if (sum === 0) usedBy.delete(key);
    else usedBy.set(key, sum);
  }

  return {
    get used() {
      return used;
    },
    get tenants() {
      return usedBy.size;
    },
    lease(source) {
      let tenant: Tenant = { subject: "source", key: source };
      let held = 0;
      let released = false;
      const giveBack = () => {
        if (held === 0) return;
        used -= held;
        add(tenant, -held);
        held = 0;
      };
      return {
        take(bytes) {
          // What is still read after its request has ended belongs to nobody who would give it back.
          if (released) throw new AppError("CANCELLED", "the request has ended");
          if (used + bytes > maxInFlightBytes) throw overloaded("process", maxInFlightBytes);
          assertRoom(tenant, bytes);
          if (bytes === 0) return;
          used += bytes;
          held += bytes;
          add(tenant, bytes);
        },
        chargeTo(orgId) {
          const org: Tenant = { subject: "org", key: orgId };
          if (held > 0 && tenant.key !== orgId) {
            assertRoom(org, held);
            add(tenant, -held);
            add(org, held);
          }
          tenant = org;
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

function overloaded(subject: Tenant["subject"] | "process", maxBytes: number): AppError {
  const whose = subject === "process" ? "" : subject === "org" ? " of your org" : " from your address";
  return new AppError("OVERLOADED", `too many request bytes${whose} are in flight`, {
    retryAfterMs,
    quotas: [
      {
        subject,
        limit: "in_flight_request_bytes",
        value: BigInt(maxBytes),
        description: "bytes of requests that are being read or served",
      },
    ],
  });
}
