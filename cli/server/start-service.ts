import { startCredentials } from "../../services/credentials/main.ts";
import { startEvents } from "../../services/events/main.ts";
import { startGateway } from "../../services/gateway/main.ts";
import { startOrchestrator } from "../../services/orchestrator/main.ts";
import { startRegistry } from "../../services/registry/main.ts";
import type { Platform } from "../../services/runtime/platform/platform.ts";
import { startTools } from "../../services/tools/main.ts";
import type { ServerConfiguration } from "./configuration.ts";

/** How each service is started with its part of the configuration. */
export const serviceStarters = {
  credentials: (platform: Platform, { credentials }: ServerConfiguration) => startCredentials(platform, credentials),
  tools: (platform: Platform, { tools }: ServerConfiguration) => startTools(platform, tools),
  registry: (platform: Platform) => startRegistry(platform),
  orchestrator: (platform: Platform, { orchestrator }: ServerConfiguration) =>
    startOrchestrator(platform, orchestrator),
  events: (platform: Platform, { events }: ServerConfiguration) => startEvents(platform, events),
  gateway: (platform: Platform, { gateway }: ServerConfiguration) => startGateway(platform, gateway),
} as const;

/** A service that can be started by name. */
export type StartableService = keyof typeof serviceStarters;

/** Whether a text names a service that can be started. */
export function isStartable(name: string): name is StartableService {
  return Object.hasOwn(serviceStarters, name);
}
