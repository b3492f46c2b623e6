import type { Environment } from "../../services/runtime/config/settings.ts";
import { flagOf, serverSettings } from "./configuration.ts";

/** The settings among a command's parsed options, by their names: `adminPort` is `CADRE_ADMIN_PORT`. */
export function settingsOf(options: Readonly<Record<string, unknown>>): Environment {
  const environment: Record<string, string> = {};
  for (const name of Object.keys(serverSettings)) {
    const option = flagOf(name)
      .slice(2)
      .replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
    const value = options[option];
    if (typeof value === "string") environment[name] = value;
  }
  return environment;
}
