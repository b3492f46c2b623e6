import { globSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InfrastructureError } from "./fault-driver.ts";

/** The system clock of processes that are started with its environment; their monotonic clocks stay true. */
export interface FakeClock {
  readonly environment: Readonly<Record<string, string>>;
  /** From now on, within a second, it is so far off. */
  set(offsetSeconds: number): void;
}

/**
 * Makes a clock that is right, by libfaketime (Debian: `apt-get install faketime`).
 *
 * @param directory where the offset is kept, in a file of that name
 * @throws InfrastructureError if the library is not there
 */
export function createFakeClock(directory: string, name: string): FakeClock {
  const [library] = globSync("/usr/lib/*/faketime/libfaketimeMT.so.1");
  if (library === undefined) throw new InfrastructureError("libfaketime is not there: apt-get install faketime");
  const file = join(directory, `${name}.faketime`);
  const clock: FakeClock = {
    environment: {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_CACHE_DURATION: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    },
    set(offsetSeconds) {
      writeFileSync(`${file}.new`, `${offsetSeconds < 0 ? "" : "+"}${offsetSeconds}s\n`);
      renameSync(`${file}.new`, file);
    },
  };
  clock.set(0);
  return clock;
}
