import { ConfigurationError } from "../../services/runtime/config/settings.ts";
import type { Connection } from "../connection.ts";
import { exitCode } from "../exit-code.ts";
import { flagOf, loadConfiguration, serverSettings } from "../server/configuration.ts";
import type { Finding } from "./finding.ts";

/**
 * Reads the configuration as a server would, and says where each value that is
 * not a default came from. Values of secrets are never shown.
 */
export function checkConfiguration(connection: Connection, environment: NodeJS.ProcessEnv): readonly Finding[] {
  const client: Finding[] = [
    { name: "url", state: "ok", detail: `${connection.url.value} (${connection.url.source})` },
    connection.apiKey === undefined
      ? {
          name: "key",
          state: "failed",
          detail: "none was found",
          remedy: "Start a server here once, run `cadre login`, or set CADRE_API_KEY.",
          exitCode: exitCode.notAllowed,
        }
      : { name: "key", state: "ok", detail: `${maskKey(connection.apiKey.value)} (${connection.apiKey.source})` },
  ];
  const said = Object.keys(environment)
    .filter((name) => name.startsWith("CADRE_") && environment[name] !== "")
    .sort()
    .map((name): Finding => {
      const isSecret =
        serverSettings[name as keyof typeof serverSettings]?.secret === true || /KEY|URL|SECRET|PASSWORD/.test(name);
      const isPublicUrl = name === "CADRE_URL";
      const shown = isSecret && !isPublicUrl ? "(not shown)" : environment[name];
      return { name: "setting", state: "ok", detail: `${name}=${shown} (environment)` };
    });
  return [...client, ...said, ...findProblems(environment)];
}

function findProblems(environment: NodeJS.ProcessEnv): readonly Finding[] {
  try {
    loadConfiguration({}, environment);
    return [{ name: "settings", state: "ok", detail: `${Object.keys(serverSettings).length} settings are valid` }];
  } catch (thrown) {
    if (!(thrown instanceof ConfigurationError)) throw thrown;
    return thrown.problems.map((problem) => ({
      name: "settings",
      state: "failed",
      detail: problem,
      remedy: "Correct it in the environment; `cadre dev --help` lists every setting.",
      exitCode: exitCode.configuration,
    }));
  }
}

/** The ports that a server here would listen on. */
export function configuredPorts(
  environment: NodeJS.ProcessEnv,
): readonly { readonly name: string; readonly port: number }[] {
  const names = ["CADRE_PORT", "CADRE_ADMIN_PORT"] as const;
  return names.flatMap((name) => {
    const setting = serverSettings[name];
    if (setting === undefined) return [];
    const parsed = setting.schema.safeParse(environment[name]);
    return parsed.success && typeof parsed.data === "number" ? [{ name: flagOf(name), port: parsed.data }] : [];
  });
}

/** Enough of a key to recognise it by. */
function maskKey(key: string): string {
  return /^cdr_(live|dev)_\w{38}$/.test(key) ? `${key.slice(0, 12)}…` : "(a credential)";
}
