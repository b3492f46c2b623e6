import { inject } from "vitest";

/** Kills the shared broker at once, as a crash would. */
export function crashKafka(): Promise<void> {
  return tell("crash");
}

/** Starts it again on its data. Resolves when it answers; at once if it runs. */
export function startKafka(): Promise<void> {
  return tell("start");
}

async function tell(order: "crash" | "start"): Promise<void> {
  const response = await fetch(`${inject("kafkaControl")}/${order}`, { method: "POST" });
  if (!response.ok) throw new Error(await response.text());
}
