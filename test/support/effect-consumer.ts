import { metrics, trace } from "@opentelemetry/api";
import { consume } from "../../services/runtime/bus/consumer/consume.ts";
import type { EventBus, Subscription } from "../../services/runtime/bus/event-bus.ts";
import { conversationTurns } from "../../services/runtime/bus/topics.ts";
import { toUuid } from "../../services/runtime/ids/id.ts";
import type { Logger } from "../../services/runtime/log/log.ts";
import type { Database } from "../../services/runtime/postgres/database.ts";
import type { EffectSchema } from "./effect-schema.ts";
import { codec } from "./turn-facts.ts";

/** Follows the turns' facts with all that `consume` brings; each effect is a row of `sample.effect`. */
export function consumeToEffects(bus: EventBus, database: Database<EffectSchema>, log: Logger): Subscription {
  return consume({
    bus,
    codec,
    topic: conversationTurns,
    group: "sample.effects",
    database,
    handle: async ({ fact, eventId, orgId }, transaction) => {
      const row = { org_id: toUuid("org", orgId), event_id: eventId, seq: Number(fact.metadata?.seq) };
      await transaction.insertInto("effect").values(row).execute();
    },
    log,
    tracer: trace.getTracer("test"),
    meter: metrics.getMeter("test"),
  });
}
