import pino from "pino";
import { onTestFinished, test } from "vitest";
import { openPostgresEventBus } from "../../services/runtime/bus/postgres-event-bus.ts";
import { createTestDatabase } from "../support/postgres.ts";
import { expectRunTraces } from "../support/run-trace.ts";

const log = pino({ level: "silent" });

test("a run is one trace over RPC or bus, journal, steps, tools, facts and their handlers", async () => {
  const { url, drop } = await createTestDatabase();
  onTestFinished(drop);
  const settings = { CADRE_DATABASE_URL: url, CADRE_STEP_FACTS: "true" };
  await expectRunTraces(settings, () => openPostgresEventBus({ url, log }));
}, 240_000);
