import { type Contestant, serve } from "./contestant.ts";

// The other process of `bench/gateway.ts`: serves one contestant until its parent goes.

const contestant = process.argv[2];
if (contestant === undefined || process.send === undefined) throw new TypeError("started by bench/gateway.ts alone");
process.send(await serve(contestant as Contestant));
// Whoever asks is told how much time of the processor was used so far, in microseconds.
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send?.(user + system);
});
process.on("disconnect", () => process.exit(0));
