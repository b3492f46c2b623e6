import { createPublicKey } from "node:crypto";
import { type Contestant, serve } from "./contestant.ts";

// The other process of `bench/mesh.ts`: serves one contestant until its parent goes.

const [contestant, publicKeyPem] = process.argv.slice(2);
if (contestant === undefined || publicKeyPem === undefined || process.send === undefined) {
  throw new TypeError("started by bench/mesh.ts alone");
}
const publicKey = createPublicKey(publicKeyPem);
const trust = { resolve: () => ({ service: "gateway", publicKey }) };
process.send(await serve(contestant as Contestant, trust));
process.on("disconnect", () => process.exit(0));
