import { Session } from "node:inspector/promises";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../runtime/errors/app-error.ts";

/** The longest profile, in seconds. */
export const maxProfileSeconds = 60;

/** Takes CPU profiles of this process. */
export interface CpuProfiler {
  /**
   * Profiles for a time and returns what Chrome's developer tools and
   * `speedscope` open (`.cpuprofile`). One at a time.
   *
   * @throws AppError OVERLOADED while another is taken
   */
  profile(seconds: number, signal: AbortSignal): Promise<string>;
}

/** Creates the profiler; it costs nothing until it is asked. */
export function createCpuProfiler(): CpuProfiler {
  let running = false;
  return {
    async profile(seconds, signal) {
      if (running) throw new AppError("OVERLOADED", "a profile is being taken", { retryAfterMs: seconds * 1_000 });
      running = true;
      const session = new Session();
      try {
        session.connect();
        await session.post("Profiler.enable");
        await session.post("Profiler.start");
        // A caller who is gone wants no more of it, but the profiler must be stopped all the same.
        await delay(seconds * 1_000, undefined, { signal }).catch(() => {});
        const { profile } = await session.post("Profiler.stop");
        return JSON.stringify(profile);
      } finally {
        session.disconnect();
        running = false;
      }
    },
  };
}
