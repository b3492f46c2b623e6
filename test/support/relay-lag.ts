import type { RunningCadre } from "./cadre.ts";

/** How many journal entries wait for the bus, as the orchestrator's metrics say; NaN if they do not. */
export async function relayLagOf({ adminUrl }: Pick<RunningCadre, "adminUrl">): Promise<number> {
  const metrics = await (await fetch(new URL("/metrics", adminUrl))).text();
  return Number(/^cadre_relay_lag\{[^}]*relay="orchestrator"[^}]*\} (\d+)/m.exec(metrics)?.[1] ?? Number.NaN);
}
