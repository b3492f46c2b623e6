import { ConfigurationError } from "../../services/runtime/config/settings.ts";
import { PortInUseError } from "../../services/runtime/edge/port-in-use.ts";
import { DataDirectoryInUseError } from "../../services/runtime/postgres/embedded-server.ts";

/** sysexits.h: something is configured so that it cannot run. */
const exitConfiguration = 78;

/**
 * Says on standard error why a server did not start, in words that name the
 * remedy, and returns the exit code: 78 for what the configuration can mend,
 * 1 for the rest.
 */
export function explainFailedStart(thrown: unknown): number {
  if (
    thrown instanceof ConfigurationError ||
    thrown instanceof DataDirectoryInUseError ||
    thrown instanceof PortInUseError
  ) {
    process.stderr.write(`cadre: ${thrown.message}\n`);
    return exitConfiguration;
  }
  process.stderr.write(`cadre: could not start: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
  return 1;
}
