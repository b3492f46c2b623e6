import { resolve } from "node:path";
import { credentialsSettings } from "../../services/credentials/config.ts";
import { eventsSettings } from "../../services/events/config.ts";
import { gatewaySettings } from "../../services/gateway/config.ts";
import { orchestratorSettings } from "../../services/orchestrator/config.ts";
import type { RegistryAccess } from "../../services/runtime/bus/confluent-registry.ts";
import { findKafkaProblems, kafkaSettings } from "../../services/runtime/bus/kafka/kafka-settings.ts";
import {
  ConfigurationError,
  type Environment,
  parseSettings,
  type Settings,
  type SettingsValues,
} from "../../services/runtime/config/settings.ts";
import { findUnknownSettings } from "../../services/runtime/config/unknown-settings.ts";
import { platformSettings } from "../../services/runtime/platform/platform-settings.ts";
import { currentProcessFacts, findUnsafeSettings } from "../../services/runtime/platform/production-safety.ts";
import { toolsSettings } from "../../services/tools/config.ts";

/** Every setting of a server, by the part that reads it. */
export const settingGroups = {
  platform: platformSettings,
  kafka: kafkaSettings,
  gateway: gatewaySettings,
  orchestrator: orchestratorSettings,
  tools: toolsSettings,
  credentials: credentialsSettings,
  events: eventsSettings,
} as const;

/** What the parsed settings of every part are. */
export type ServerConfiguration = {
  readonly [G in keyof typeof settingGroups]: SettingsValues<(typeof settingGroups)[G]>;
} & { readonly environment: Environment };

/** Settings of the client side, which a server ignores. */
const clientSettings = ["CADRE_URL", "CADRE_API_KEY", "CADRE_PROFILE"];

/** All settings of a server, for flags and for help. */
export const serverSettings: Settings = Object.assign({}, ...Object.values(settingGroups));

/** The flag of a setting: `CADRE_ADMIN_PORT` is `--admin-port`. */
export function flagOf(name: string): string {
  return `--${name.slice("CADRE_".length).toLowerCase().replaceAll("_", "-")}`;
}

/**
 * Reads flags and environment into the configuration of a server. Finds every
 * problem at once: values that are wrong, settings that do not exist, and in
 * production what is not safe.
 *
 * @param flags values by the setting's name; they win over the environment
 * @throws ConfigurationError
 */
export function loadConfiguration(
  flags: Environment,
  processEnvironment: Environment = process.env,
): ServerConfiguration {
  const environment: Environment = { ...processEnvironment, ...flags };
  const problems = findUnknownSettings(environment, [...Object.keys(serverSettings), ...clientSettings]);
  const parse = <S extends Settings>(settings: S): SettingsValues<S> | undefined => {
    try {
      return parseSettings(settings, environment);
    } catch (thrown) {
      if (!(thrown instanceof ConfigurationError)) throw thrown;
      problems.push(...thrown.problems);
      return undefined;
    }
  };
  const platform = parse(platformSettings);
  const kafka = parse(kafkaSettings);
  const gateway = parse(gatewaySettings);
  const orchestrator = parse(orchestratorSettings);
  const tools = parse(toolsSettings);
  const credentials = parse(credentialsSettings);
  const events = parse(eventsSettings);
  if (platform?.CADRE_BUS === "kafka" && kafka !== undefined) problems.push(...findKafkaProblems(kafka));
  if (environment.CADRE_MODE === "production") problems.push(...findUnsafeSettings(environment, currentProcessFacts()));
  if (
    problems.length > 0 ||
    platform === undefined ||
    kafka === undefined ||
    gateway === undefined ||
    orchestrator === undefined ||
    tools === undefined ||
    credentials === undefined ||
    events === undefined
  ) {
    throw new ConfigurationError(problems);
  }
  return { platform, kafka, gateway, orchestrator, tools, credentials, events, environment };
}

/** The Kafka that facts go to; undefined if they go to the bus in PostgreSQL. */
export function kafkaOf({ platform, kafka }: ServerConfiguration): ServerConfiguration["kafka"] | undefined {
  return platform.CADRE_BUS === "kafka" ? kafka : undefined;
}

/** The registry whose ids events carry; undefined for ids made from the build. */
export function registryOf({ platform }: ServerConfiguration): RegistryAccess | undefined {
  const { CADRE_REGISTRY_URL: url, CADRE_REGISTRY_CREDENTIALS_FILE: credentialsFile } = platform;
  return url === undefined ? undefined : { url: url.replace(/\/$/, ""), credentialsFile };
}

/** The data directory, absolute. */
export function dataDirectoryOf(configuration: ServerConfiguration): string {
  return resolve(configuration.platform.CADRE_DATA);
}
