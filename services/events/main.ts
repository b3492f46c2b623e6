import { openEventBus } from "../runtime/bus/open-event-bus.ts";
import { deadLetterTopicOf, topics } from "../runtime/bus/topics.ts";
import type { ServiceName } from "../runtime/mesh/mesh.ts";
import { loadPageTokens } from "../runtime/page/load-page-tokens.ts";
import type { StartService } from "../runtime/platform/platform.ts";
import { migrate } from "../runtime/postgres/migrator.ts";
import { openDatabase } from "../runtime/postgres/open-database.ts";
import { startPruning } from "../runtime/postgres/pruning.ts";
import { keepDeadLetter } from "./app/keep-dead-letter.ts";
import type { EventsConfig } from "./config.ts";
import { deadLetterHandlers } from "./rpc/dead-letter-handlers.ts";
import { migrations } from "./store/migrations/index.ts";
import { PostgresDeadLetterStore } from "./store/postgres-dead-letter-store.ts";

const self: ServiceName = "events";

/** Of each role: a letter at a time is kept, and people ask. */
const maxConnections = 3;

/** Starts events. */
export const startEvents: StartService<EventsConfig> = async (platform, config) => {
  const log = platform.log.child({ component: self });
  const { databaseUrl: url, tracer, meter } = platform;
  const pages = loadPageTokens(platform);

  await migrate({ url, service: self, migrations, log });
  const database = openDatabase<Record<never, never>>({ url, service: self, log, tracer, meter, maxConnections });
  const { bus, dependencies } = await openEventBus({ kafka: platform.kafka, databaseUrl: url, log, tracer, meter });

  const letters = new PostgresDeadLetterStore(database);
  const { denials } = platform.audit(self);
  const retentionDays = config.CADRE_EVENTS_DEAD_LETTER_RETENTION_DAYS;
  const stopPruning = startPruning("dead letters", (limit) => letters.prune(retentionDays, limit), log);
  for (const { name } of topics) {
    bus.subscribe({
      topic: deadLetterTopicOf(name),
      group: "events.dead-letters",
      handle: (event) => keepDeadLetter({ letters, denials }, event),
    });
  }
  const server = await platform.serve(self, {
    implementations: [deadLetterHandlers({ letters, bus }, pages)],
    dependencies: [database.dependency, ...dependencies],
    topics,
  });

  let stopped: Promise<void> | undefined;
  return {
    name: self,
    stop(graceMs) {
      stopped ??= (async () => {
        await server.close(graceMs);
        await Promise.all([bus.close(), stopPruning()]);
        await database.close();
      })();
      return stopped;
    },
  };
};
