// The one exception to the border: `cadre db` needs the steps of every service
// without starting any of them, and the steps know nothing but SQL.
/* oxlint-disable no-restricted-imports */

import type { Migration } from "../../services/runtime/postgres/migrator.ts";

/** A schema of the database, and the steps that make it. */
export interface SchemaSource {
  readonly service: string;
  readonly load: () => Promise<readonly Migration[]>;
}

/** Every schema that a Cadre has, in the order in which they are made. */
export const schemaSources: readonly SchemaSource[] = [
  {
    service: "bus",
    load: async () => (await import("../../services/runtime/bus/migrations/index.ts")).migrations,
  },
  {
    service: "events",
    load: async () => (await import("../../services/events/store/migrations/index.ts")).migrations,
  },
  {
    service: "credentials",
    load: async () => (await import("../../services/credentials/store/migrations/index.ts")).migrations,
  },
  {
    service: "tools",
    load: async () => (await import("../../services/tools/store/migrations/index.ts")).migrations,
  },
  {
    service: "registry",
    load: async () => (await import("../../services/registry/store/migrations/index.ts")).migrations,
  },
  {
    service: "orchestrator",
    load: async () => (await import("../../services/orchestrator/store/migrations/index.ts")).migrations,
  },
];
