import { createPublicKey } from "node:crypto";
import type { TlsMaterial } from "../../services/runtime/mesh/tls.ts";
import { type Contestant, serve } from "./contestant.ts";

// The other process of `bench/mesh.ts`: serves one contestant until its parent goes.

/** What the parent says first. */
export interface ServeOrder {
  readonly contestant: Contestant;
  readonly publicKeyPem: string;
  /** None: plaintext. */
  readonly tls?: TlsMaterial;
}

if (process.send === undefined) throw new TypeError("started by bench/mesh.ts alone");
process.once("message", (order: ServeOrder) => {
  const publicKey = createPublicKey(order.publicKeyPem);
  const trust = { resolve: () => ({ service: "gateway", publicKey }) };
  void serve(order.contestant, trust, order.tls).then((address) => {
    // Whoever asks is told how much time of the processor was used so far, in microseconds.
    process.on("message", () => {
      const { user, system } = process.cpuUsage();
      process.send?.(user + system);
    });
    process.send?.(address);
  });
});
process.on("disconnect", () => process.exit(0));
