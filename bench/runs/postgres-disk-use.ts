import type { DiskUse } from "./contestant.ts";
import { directorySize } from "./directory-size.ts";
import type { PostgresProbe } from "./postgres-probe.ts";

/**
 * What a data directory of Cadre takes. The log's files are made ahead and used
 * again, so that not their size but the position in the log says what was written.
 */
export async function postgresDiskUse(directory: string, probe: PostgresProbe): Promise<DiskUse> {
  return { dataBytes: await directorySize(directory, ["pg_wal"]), logBytes: await probe.logBytes() };
}
