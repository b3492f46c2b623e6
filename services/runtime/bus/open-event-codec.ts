import type { Meter } from "@opentelemetry/api";
import type { RegistryAccess } from "./confluent-registry.ts";
import { createEventCodec, type EventCodec } from "./envelope.ts";
import { createRegistrySchemaIds } from "./registry-schema-ids.ts";
import { createLocalSchemaIds, type SchemaIds } from "./schema-ids.ts";

/** The codec of a process's events under the ids of a registry, or, without one, of the contracts of the build. */
export function openEventCodec(
  registry: RegistryAccess | undefined,
  meter?: Meter,
): { readonly codec: EventCodec; readonly schemaIds: SchemaIds } {
  const schemaIds = registry === undefined ? createLocalSchemaIds() : createRegistrySchemaIds(registry);
  const knowsAllIds = registry !== undefined;
  return { codec: createEventCodec(schemaIds, { knowsAllIds, meter }), schemaIds };
}
