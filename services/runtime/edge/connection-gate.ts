import { type BlockList, isIPv6 } from "node:net";
import type { EdgeLimits } from "./edge-limits.ts";

/** Whether a connection may stay. */
export type Admission =
  | { readonly admitted: true; release(): void }
  | { readonly admitted: false; readonly reason: "process" | "source" };

/** Counts connections: of the process, and of each source. */
export interface ConnectionGate {
  /** Admits a connection by its address. Call `release` once when it is closed. */
  admit(address: string): Admission;
  /** How many are open. */
  readonly open: number;
}

/** @param exempt addresses, such as a load balancer's, that stand for many sources */
export function createConnectionGate(
  limits: Pick<EdgeLimits, "maxConnections" | "maxConnectionsPerSource">,
  exempt: BlockList,
): ConnectionGate {
  const bySource = new Map<string, number>();
  let open = 0;
  return {
    get open() {
      return open;
    },
    admit(address) {
      if (open >= limits.maxConnections) return { admitted: false, reason: "process" };
      const source = sourceOf(address);
      const count = bySource.get(source) ?? 0;
      if (count >= limits.maxConnectionsPerSource && !exempt.check(address, isIPv6(address) ? "ipv6" : "ipv4")) {
        return { admitted: false, reason: "source" };
      }
      open += 1;
      bySource.set(source, count + 1);
      return {
        admitted: true,
        release() {
          open -= 1;
          const left = (bySource.get(source) ?? 1) - 1;
          if (left === 0) bySource.delete(source);
          else bySource.set(source, left);
        },
      };
    },
  };
}

/** The address without the prefix of an IPv4 address in IPv6. */
export function plainAddress(address: string | undefined): string {
  return address?.replace(/^::ffff:(?=\d+\.)/i, "") ?? "unknown";
}

/**
 * What is counted as one source: an IPv4 address, or an IPv6 /64, which is the
 * least that one host is given.
 */
export function sourceOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = "", tail = ""] = address.replace(/%.*$/, "").split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === "" ? [] : tail.split(":");
  const groups = address.includes("::")
    ? [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill("0"), ...right]
    : left;
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}
