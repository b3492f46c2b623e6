import type { Cadre, DeadLetter } from "@cadre/sdk";
import pino from "pino";
import { toDeadLetterEvent } from "../../services/runtime/bus/dead-letter-event.ts";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { newId } from "../../services/runtime/ids/id.ts";
import { until } from "./settled.ts";
import { turnEvent } from "./turn-facts.ts";

/**
 * Puts events of the client's org on the dead-letter topic of the turns, as a
 * consumer whose handler failed does; resolves when they are kept.
 *
 * @param databaseUrl of the server's bus
 */
export async function putAside(databaseUrl: string, cadre: Cadre, count: number): Promise<readonly DeadLetter[]> {
  const { orgId } = (await cadre.principal()).principal;
  const bus = await openPostgresEventBus({ url: databaseUrl, log: pino({ level: "silent" }) });
  for (let offset = 0; offset < count; offset++) {
    const event = await turnEvent(orgId, newId("ses"), offset);
    const received = { ...event, partition: 0, offset: BigInt(offset), publishedAt: new Date() };
    const failure = {
      group: "sample.turns",
      attempts: 3,
      reason: "INTERNAL",
      message: "no",
      failedAt: new Date(),
    } as const;
    await bus.publish([toDeadLetterEvent(received, failure)]);
  }
  await bus.close();
  let kept: readonly DeadLetter[] = [];
  await until(async () => {
    kept = (await cadre.deadLetters.list({ group: "sample.turns" }).page()).items;
    return kept.length >= count;
  });
  return kept;
}
