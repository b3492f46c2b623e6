import type { EventBus } from "../../runtime/bus/event-bus.ts";
import { openEventCodec } from "../../runtime/bus/open-event-codec.ts";
import { startRelay } from "../../runtime/bus/relay.ts";
import type { Logger } from "../../runtime/log/log.ts";
import type { Platform } from "../../runtime/platform/platform.ts";
import type { Database } from "../../runtime/postgres/database.ts";
import { createRelayLease } from "../store/relay-lease.ts";
import type { CredentialsSchema } from "../store/schema.ts";
import { createAuditRelaySource } from "./audit-relay-source.ts";
import { createChangeRelaySource } from "./change-relay-source.ts";

export interface StartRelaysOptions {
  readonly platform: Pick<Platform, "registry" | "meter" | "processId">;
  readonly database: Database<CredentialsSchema>;
  readonly bus: EventBus;
  readonly log: Logger;
}

/** What hands the service's facts on. */
export interface CredentialsRelays {
  /** There is a new change, and with it an entry. Other entries are looked for every second. */
  wake(): void;
  stop(): Promise<void>;
}

/**
 * Relays the audit log and the changes of who may do what. Nothing waits for it:
 * while the bus is away, or the registry, facts stay where they are.
 */
export function startRelays({ platform, database, bus, log }: StartRelaysOptions): CredentialsRelays {
  const { registry, meter, processId } = platform;
  const { engine } = database;
  const { codec } = openEventCodec(registry, meter);
  const lease = createRelayLease(engine, processId);
  const shared = { bus, meter, log: log.child({ component: "relay" }) };
  const audit = startRelay({
    ...shared,
    name: "credentials.audit",
    source: createAuditRelaySource({ engine, codec, lease }),
  });
  const changes = startRelay({
    ...shared,
    name: "credentials.changes",
    source: createChangeRelaySource({ engine, codec, lease }),
  });
  return {
    wake() {
      changes.wake();
      audit.wake();
    },
    async stop() {
      await Promise.all([audit.stop(), changes.stop()]);
      // Best effort: another replica waits for the end of the lease otherwise.
      await lease.release().catch((thrown: unknown) => log.debug({ err: thrown }, "could not give up the relays"));
    },
  };
}
